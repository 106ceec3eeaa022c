"""Suites: which runs together answer a question. One entry each; all else is in the registries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from greedylr.lab.catalogue.grammar import read, write
from greedylr.lab.catalogue.perturbations import PERTURBATIONS, suits
from greedylr.lab.catalogue.problems import PROBLEMS
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.runs import Run


@dataclass(frozen=True)
class Suite:
    """Every scheduler with every optimizer, at every learning rate and for every seed, on every problem.

    Attributes:
        name: Identifier, on the command line.
        note: What it is for, in a line.
        problems: Names of problems.
        multipliers: Initial learning rates, as multiples of the good one.
        seeds: How many, from 0: those that learning rates were tuned with begin at 100.
        optimizers: Names of optimizers.
        schedulers: Names of schedulers; with an optimizer that one does not suit it is left out.
        perturbations: Names of perturbations; a run that one has nothing to act on in is left out.
        steps: Optimizer steps of every run; None: those of the problem.
        lr: A learning rate for every problem, of which ``multipliers`` are then multiples; None: the good ones.
    """

    name: str
    note: str
    problems: tuple[str, ...]
    multipliers: tuple[float, ...]
    seeds: int
    optimizers: tuple[str, ...] = ("adamw",)
    schedulers: tuple[str, ...] = tuple(SCHEDULERS)
    perturbations: tuple[str, ...] = ("none",)
    steps: int | None = None
    lr: float | None = None

    def runs(self) -> list[Run]:
        """The runs, seed by seed."""
        every = product(
            range(self.seeds), self.problems, self.optimizers, self.multipliers, self.perturbations, self.schedulers
        )
        runs = [
            Run(
                problem,
                multiplier if self.lr is None else multiplier * self.lr / PROBLEMS[problem].lrs[optimizer],
                scheduler,
                seed,
                PROBLEMS[problem].steps if self.steps is None else self.steps,
                optimizer,
                perturbation,
            )
            for seed, problem, optimizer, multiplier, perturbation, scheduler in every
            if SCHEDULERS[scheduler].suits(optimizer)
        ]
        return [run for run in runs if suits(run)]


def _with_confirmation(development: Suite, problems: tuple[str, ...]) -> tuple[Suite, Suite]:
    """A suite that the rule is made with, and the same on problems that it is not made with."""
    question = development.name.removesuffix("-development")
    note = "the same on problems that it was not made with"
    return development, replace(development, name=f"{question}-confirmation", note=note, problems=problems)


def _of_kind(kind: str) -> tuple[str, ...]:
    return tuple(problem.name for problem in PROBLEMS.values() if problem.kind == kind)


def _perturbations(*, published: bool) -> tuple[str, ...]:
    """All of them, those of the published study or the others, and the twins."""
    chosen = (name for name, one in PERTURBATIONS.items() if (one.kind.acts_on == "nothing") == published)
    return ("none", *chosen)


# As many steps, and models, as the published study has. These models differ, learn in 200 steps, and train fast many
# at once.
_ROBUSTNESS_STEPS = 200
_ROBUSTNESS_PROBLEMS = (
    "quadratic-100",
    "quadratic-10000",
    "quadratic-noisy",
    "rosenbrock",
    "rastrigin",
    "ackley",
    "least-squares",
    "logistic",
    "mlp",
    "residual-mlp",
    "gru",
    "experts",
)
_ROBUSTNESS_SCHEDULERS = (
    "greedylr",
    "paper",
    "transformers-greedylr",
    "plateau",
    "constant",
    "linear",
    "cosine",
    "cosine-restarts",
    "exponential",
    "wsd",
)

# The split is argued in docs/research/default.md; each side has one more problem, which is too slow for a suite.
_DEVELOPMENT = (
    "quadratic-100",
    "quadratic-noisy",
    "rastrigin",
    "logistic",
    "mlp",
    "digits",
    "gru",
    "attention",
    "deep-transformer",
    "domains",
    "bandit",
)
_CONFIRMATION = (
    "quadratic-10000",
    "rosenbrock",
    "ackley",
    "least-squares",
    "residual-mlp",
    "vit",
    "lm-prose",
    "experts",
    "uneven",
    "continual",
)
# Of pre-trained models, and of runs of many epochs; which side is which, likewise.
_FINE_TUNING_DEVELOPMENT = ("tuned-scarce", "tuned-adapters", "tuned-digits")
_FINE_TUNING_CONFIRMATION = ("tuned-gru", "tuned-names", "tuned-vit")
_LONG_DEVELOPMENT = ("mlp", "gru")
_LONG_CONFIRMATION = ("residual-mlp", "lm-prose")
_LONG = 10_000
_CONTENDERS = (
    "greedylr",
    "greedylr-open",
    "transformers-greedylr-smooth",
    "transformers-greedylr-forgetful",
    "constant",
    "linear",
    "cosine",
    "wsd",
    "schedule-free",
    "prodigy",
)
_TUNING_MULTIPLIERS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_USUAL_MULTIPLIERS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_LONG_MULTIPLIERS = (0.1, 1.0, 10.0)
_PEERS = (
    "greedylr",
    "greedylr-open",
    "paper",
    "transformers-greedylr",
    "transformers-greedylr-smooth",
    "plateau",
    "adalrs",
    "constant",
    "linear",
    "cosine",
    "cosine-restarts",
    "wsd",
    "one-cycle",
    "schedule-free",
    "prodigy",
    "momo",
    "salsa",
)

# The development side but its slowest problem and the one that is told a reward; of 400 steps, so that a part of a run
# is the same number of them everywhere. Each setting lower and higher, or what it stands for left out.
_ABLATION = tuple(name for name in _DEVELOPMENT if name not in ("deep-transformer", "bandit"))
_ABLATED = (
    "greedylr",
    "greedylr-loss",
    "greedylr-climb",
    "greedylr:catch_up_steps=0",
    "greedylr:polyak=1000000000.0",
    "greedylr:polyak=1.0",
    "greedylr:polyak=4.0",
    "greedylr:headroom=2.5",
    "greedylr:headroom=10.0",
    "greedylr:catch_up_steps=12",
    "greedylr:catch_up_steps=48",
    "greedylr:warmup_steps=0",
    "greedylr:warmup_steps=20",
    "greedylr:warmup_steps=80",
    "greedylr:anneal=0.0",
    "greedylr:anneal=0.5",
    "greedylr:spike=3.0",
    "greedylr:spike=1000000000.0",
    # Added after a look at those.
    "greedylr:polyak=3.0",
    "greedylr:polyak=8.0",
    "greedylr:headroom=2.5,polyak=4.0",
    "greedylr:catch_up_steps=12,polyak=4.0",
    "greedylr:polyak=4.0,warmup_steps=60",
    "greedylr:anneal=0.75,polyak=4.0",
    "constant",
    "linear",
    "cosine",
    "wsd",
)

# All but the two that are too slow for a suite, and the one that is told a reward.
_ONE_RATE_PROBLEMS = tuple(
    problem.name
    for problem in PROBLEMS.values()
    if problem.kind not in ("encoder", "architecture")
    and problem.task.mode == "min"
    and problem.name not in ("stdlib-text", "wide-transformer")
)

# Those that the published evidence compares, and the rule as published and as its authors trained with it.
_BREADTH = (
    "greedylr",
    "paper",
    "transformers-greedylr-forgetful",
    "constant-warmup",
    "linear",
    "cosine",
    "cosine-restarts",
    "polynomial",
    "exponential",
)
_BREADTH_QUICK = ("bert-modules", "roberta-marked", "electra-types", "t5-summaries", "gpt2-prose", "resnet-tiles")
_BREADTH_OPTIMIZERS = ("sgd", "adamw", "adagrad", "adafactor")

_FACTORS = (0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
# The rule as published, without one safeguard or the other, without any, and ours.
_OF_FACTOR = ("paper:", "paper:patience=0,", "paper:smooth=False,", "core:", "greedylr:")


def _with_factor(rule: str, factor: float) -> str:
    entry, settings = read(f"{rule}factor={factor}")
    return write(entry, settings)


SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite(
            "demo",
            "the demonstration, which greedylr demo runs and shows: two real problems; a minute on two cores",
            problems=("digits", "stdlib-text"),
            multipliers=(0.1, 1.0, 10.0),
            seeds=2,
            schedulers=("greedylr", "paper", "cosine", "constant"),
            steps=400,
        ),
        Suite(
            "quick",
            "a first look: small problems, eight schedulers; two minutes on two cores",
            problems=("quadratic-noisy", "mlp", "residual-mlp", "gru", "digits"),
            multipliers=(0.1, 1.0, 10.0),
            seeds=3,
            schedulers=(
                "greedylr",
                "greedylr-open",
                "paper",
                "constant",
                "linear",
                "cosine",
                "wsd",
                "schedule-free",
            ),
        ),
        Suite(
            "breadth-small",
            "every scheduler on every problem that learns, at learning rates from far too low to far too high",
            problems=_of_kind("learned"),
            multipliers=(0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
            seeds=3,
            optimizers=("sgd", "adamw", "adafactor"),
        ),
        Suite(
            "breadth",
            "16 architectures of Transformers on 17 sets of real data: 132 experiments; four hours on two cores",
            problems=_of_kind("architecture"),
            multipliers=(1.0,),
            seeds=2,
            optimizers=_BREADTH_OPTIMIZERS,
            schedulers=_BREADTH,
        ),
        Suite(
            "breadth-quick",
            "24 of them, on data that any machine has; three quarters of an hour on two cores",
            problems=_BREADTH_QUICK,
            multipliers=(1.0,),
            seeds=2,
            optimizers=_BREADTH_OPTIMIZERS,
            schedulers=_BREADTH,
        ),
        Suite(
            "breadth-away",
            "six of them at a tenth of the good learning rate and at ten times it; twenty minutes on two cores",
            problems=_BREADTH_QUICK,
            multipliers=(0.1, 10.0),
            seeds=2,
            optimizers=("sgd", "adamw"),
            schedulers=("greedylr", "paper", "constant-warmup", "linear", "cosine"),
        ),
        Suite(
            "breadth-pretrained",
            "a published encoder, tuned on much data and on little, at learning rates from too low to too high",
            problems=_of_kind("encoder"),
            multipliers=(0.1, 1.0, 3.0),
            seeds=2,
            schedulers=(
                "greedylr-validated",
                "greedylr:max_scale=1",
                "greedylr",
                "constant-warmup",
                "linear",
                "cosine",
            ),
        ),
        Suite(
            "boundary",
            "every scheduler where the loss is a poor guide: domains that alternate, experts, rewards, tasks in turn",
            problems=_of_kind("boundary"),
            multipliers=(0.1, 1.0, 10.0),
            seeds=5,
        ),
        Suite(
            "robustness",
            "training and observations disturbed in 22 ways of three strengths, and the twins that are not",
            problems=_ROBUSTNESS_PROBLEMS,
            multipliers=(0.1, 1.0, 10.0),
            seeds=2,
            schedulers=_ROBUSTNESS_SCHEDULERS,
            perturbations=_perturbations(published=False),
            steps=_ROBUSTNESS_STEPS,
        ),
        Suite(
            "robustness-published",
            "the published protocol: numbers added to the loss that change nothing; Adam, learning rate 0.01",
            problems=_ROBUSTNESS_PROBLEMS,
            multipliers=(1.0,),
            seeds=2,
            optimizers=("adam",),
            schedulers=_ROBUSTNESS_SCHEDULERS,
            perturbations=_perturbations(published=True),
            steps=_ROBUSTNESS_STEPS,
            lr=0.01,
        ),
        Suite(
            "factor",
            "250 steps at six values of F: which diverge, and what keeps the published rule from it",
            problems=("mlp", "vit", "gru", "lm-prose", "tuned-gru", "tuned-names"),
            multipliers=(1.0,),
            seeds=3,
            optimizers=("sgd", "adamw"),
            schedulers=(
                *(_with_factor(rule, factor) for rule in _OF_FACTOR for factor in _FACTORS),
                "constant",
                "cosine",
            ),
            steps=250,
        ),
        *_with_confirmation(
            Suite(
                "default-development",
                "what the rule was made with, against every peer, from a hundredth of the good learning rate on",
                problems=_DEVELOPMENT,
                multipliers=_TUNING_MULTIPLIERS,
                seeds=3,
                optimizers=("sgd", "adamw"),
                schedulers=_PEERS,
            ),
            _CONFIRMATION,
        ),
        Suite(
            "default-ablation",
            "the rule without one part or another, and with each setting lower and higher, 400 steps",
            problems=_ABLATION,
            multipliers=_USUAL_MULTIPLIERS,
            seeds=2,
            optimizers=("sgd", "adamw"),
            schedulers=_ABLATED,
            steps=400,
        ),
        Suite(
            "one-rate",
            "one learning rate for every problem, from 3e-5 to 1: which scheduler needs none of its own for each",
            problems=_ONE_RATE_PROBLEMS,
            multipliers=(0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0),
            seeds=2,
            optimizers=("sgd", "adamw"),
            schedulers=_CONTENDERS,
            lr=1e-3,
        ),
        *_with_confirmation(
            Suite(
                "fine-tuning-development",
                "pre-trained models on new data, much or scarce, in full or by adapters: what the rule was made with",
                problems=_FINE_TUNING_DEVELOPMENT,
                multipliers=_USUAL_MULTIPLIERS,
                seeds=3,
                optimizers=("sgd", "adamw"),
                schedulers=("greedylr-validated", "greedylr:max_scale=1", *_PEERS),
            ),
            _FINE_TUNING_CONFIRMATION,
        ),
        *_with_confirmation(
            Suite(
                "long-development",
                "10,000 steps, the data seen many times over: what the rule was made with",
                problems=_LONG_DEVELOPMENT,
                multipliers=_LONG_MULTIPLIERS,
                seeds=2,
                schedulers=_CONTENDERS,
                steps=_LONG,
            ),
            _LONG_CONFIRMATION,
        ),
    )
}
"""Every suite by its name."""
