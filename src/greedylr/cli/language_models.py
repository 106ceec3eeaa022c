"""``greedylr lm``: what it says; the work is done in :mod:`greedylr.language_models`."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import PartialState  # type: ignore[import-untyped]
from rich.console import Console
from rich.markup import escape

from greedylr.cli.training import RefusedError, code_of, progress
from greedylr.lab.analysis.statistics.differences import STAGES
from greedylr.lab.analysis.summary import outcome
from greedylr.lab.catalogue.grammar import read, write
from greedylr.lab.catalogue.problems import DataError
from greedylr.lab.comparison.chosen import choose
from greedylr.lab.comparison.compared import Compared
from greedylr.lab.comparison.on_a_function import run_trials
from greedylr.lab.comparison.trial import Trial, TrialError
from greedylr.lab.execution.engines.processes import worker_count
from greedylr.lab.report import page, published, words
from greedylr.lab.results import Result
from greedylr.language_models.data import SETS, TEXTS
from greedylr.language_models.models import PRESETS, ModelError
from greedylr.language_models.models.loading import TINY
from greedylr.language_models.recipes import fine_tuning, pretraining, tiny
from greedylr.language_models.recipes.common import MODEL
from greedylr.language_models.recipes.fine_tuning import FineTuning
from greedylr.language_models.recipes.grpo import GRPO
from greedylr.language_models.recipes.pretraining import Pretraining
from greedylr.presentation import check_writable
from greedylr.presentation.terminal import FittingTable, as_markup
from greedylr.presentation.words import count
from greedylr.torch.distributed import is_main

_STORE = "runs.sqlite"
_PAGE = "report.html"


class Recipe(Protocol):
    """An experiment of :mod:`greedylr.language_models.recipes`."""

    @property
    def keep_model(self) -> bool:
        """True if the trained model is kept in the folder of the run."""

    def __call__(self, trial: Trial) -> None:
        """Train once."""

    def settings(self) -> dict[str, Any]:
        """All that decides a result beside the code."""

    def check(self) -> None:
        """Raise what training would, before anything is trained."""


def compare(
    console: Console,
    recipe: Recipe,
    schedulers: str,
    lrs: str,
    seeds: int,
    out: Path,
    jobs: int | None,
    show: Callable[[Console, Compared], None],
) -> int:
    """Train under each scheduler, at each learning rate, from each seed, and leave a table and a page.

    Args:
        console: Where to print.
        recipe: What to train.
        schedulers: Names, between commas; settings may follow a name: ``paper:factor=0.5,patience=3,cosine``.
        lrs: Learning rates, between commas.
        seeds: Number of seeds.
        out: Folder for the results, the page and the traces.
        jobs: Number of processes; None: one for each core, or one alone on a device or where a launcher has started
            several.
        show: Prints what came of it.

    Returns:
        The exit code: 0, 1 after an error, 130 after Ctrl-C.
    """
    launched = bool(_processes())
    if launched:
        PartialState()
    if not is_main():
        console = Console(quiet=True)

    def work() -> None:
        chosen = choose(_names(schedulers))
        rates = _rates(lrs)
        check_writable(out / _PAGE, page.GENERATOR)
        if getattr(recipe, "model", None) == TINY and is_main() and not tiny.is_made():
            console.print("tiny is pre-trained first, which takes about a minute; it is kept for the next time.")
        recipe.check()
        out.mkdir(parents=True, exist_ok=True)
        total = len(chosen) * len(rates) * seeds
        cores = 1 if launched or torch.cuda.is_available() else jobs or worker_count(total)
        console.print(
            f"{count(len(chosen), 'scheduler')} × {count(len(rates), 'learning rate')} × {count(seeds, 'seed')}: "
            f"{count(total, 'run')} on {'a device' if torch.cuda.is_available() else count(cores, 'core')}, kept in "
            f"{as_markup(out)}.",
            soft_wrap=True,
        )
        with progress(console, "training") as bar:
            task = bar.add_task("", total=total)
            finished = 0

            def done(result: Result, before: bool) -> None:
                nonlocal finished
                finished += 1
                bar.update(task, completed=finished)

            def watch(share: float) -> None:
                bar.update(task, completed=finished + share)

            made = run_trials(
                recipe,
                chosen,
                rates,
                range(seeds),
                store=out / _STORE,
                settings=recipe.settings() | _processes(),
                jobs=cores,
                done=done,
                watch=watch,
            )
        compared = Compared(tuple(made.results), tuple(one.name for one in chosen), made.fixed)
        show(console, compared)
        if is_main():
            console.print(f"Page: {as_markup(compared.write(out / _PAGE))}", soft_wrap=True)
            if recipe.keep_model:
                _show_models(console, out, made.folders)
            console.print(f"One run, step by step: greedylr report {as_markup(out / 'runs')}/…", soft_wrap=True)

    def refusing() -> None:
        try:
            work()
        except (ModelError, DataError, TrialError, ValueError) as error:
            raise RefusedError(str(error)) from error

    return code_of(console, refusing)


def show_fine_tuning(console: Console, compared: Compared) -> None:
    """Print a comparison of fine-tunings, the published figures beside it."""
    console.print(compared.table())
    _show_metrics(console, compared)
    _show_stages(console, compared, {})
    if compared.schedulers[0] in published.METHOD and "cosine" in compared.schedulers:
        console.print(escape(f"{published.FINE_TUNING} ({published.SOURCE})."))


def show_grpo(console: Console, compared: Compared) -> None:
    """Print a comparison of trainings on rewards."""
    console.print(compared.table())
    console.print("The loss is 1 minus the mean reward of prompts that are not trained on.")


def show_pretraining(console: Console, compared: Compared) -> None:
    """Print a comparison of pre-trainings, the published figures beside it."""
    console.print(compared.table())
    _show_stages(console, compared, {one.stage: one.benefit for one in published.PRETRAINING})


def show_factors(console: Console, compared: Compared) -> None:
    """Print the final loss of each rule by F, and how many runs diverged."""
    starts = [result.start_loss for result in compared.results]
    factors = sorted({read(name)[1]["factor"] for name in compared.schedulers})
    table = FittingTable(
        f"Mean validation loss at the end, by F; it starts at {statistics.mean(starts):.2f}",
        "rule",
        *(f"{factor:g}" for factor in factors),
    )
    rules: dict[str, dict[float, list[Result]]] = {}
    for result in compared.results:
        entry, settings = read(result.run.scheduler)
        factor = settings.pop("factor")
        rules.setdefault(words.title(write(entry, settings)), {}).setdefault(factor, []).append(result)
    for rule, by_factor in rules.items():
        table.add_row(escape(rule), *(_ends(by_factor.get(factor, [])) for factor in factors))
    row = (f"{published.FACTOR_SWEEP[one]:.2f}" if one in published.FACTOR_SWEEP else "" for one in factors)
    table.add_row("published: Phi-2, from 2.28", *row)
    console.print(table)


def list_all(console: Console) -> int:
    """Print models, data and texts that have names.

    Returns:
        The exit code, 0.
    """
    table = FittingTable(
        "Models: weights in all and in adapters, and memory without activations",
        *("name", "parameters", "full, float32", "adapters, rank 8", "with adapters, bfloat16", "adapters in"),
        words=(0, 5),
    )
    for preset in PRESETS.values():
        size = preset.size()
        table.add_row(
            f"[bold]{preset.name}[/]",
            f"{size.parameters / 1e6:,.1f} M",
            _gigabytes(size.full),
            f"{size.adapters / 1e6:,.2f} M",
            _gigabytes(size.low_rank),
            escape(", ".join(size.targets)),
        )
    console.print(table)
    table = FittingTable("Data for fine-tuning", words=(0, 1, 2))
    for name, one in SETS.items():
        table.add_row(f"[bold]{name}[/]", escape(one.title), escape(one.source))
    console.print(table)
    table = FittingTable("Text for pre-training", words=(0, 1))
    for name, load in TEXTS.items():
        table.add_row(f"[bold]{name}[/]", escape(str(load.__doc__)))
    console.print(table)
    console.print(
        "tiny, the model to try things with, is llama-1m pre-trained on library: it is made when first asked for."
    )
    return 0


def fine_tuning_of(
    model: str,
    data: str,
    lora: bool | None,
    steps: int | None,
    batch: int | None,
    accumulate: int,
    length: int | None,
    examples: int | None,
    in_turns: bool,
    keep_models: bool,
) -> tuple[FineTuning, str]:
    """The recipe, and the learning rates where none are given: as published where the model is one of those."""
    known: dict[str, Any] = fine_tuning.PUBLISHED if fine_tuning.is_published(model) else {}
    given = {"lora": lora, "steps": steps, "batch": batch, "examples": examples}
    settings = known | {name: value for name, value in given.items() if value is not None}
    settings |= {"accumulate": accumulate, "length": length, "in_turns": in_turns, "keep_model": keep_models}
    recipe = FineTuning(model, data, **settings)
    return recipe, str(fine_tuning.PUBLISHED_LR) if known else ("1e-3,1e-2" if recipe.lora else "3e-4,3e-3")


def pretraining_of(
    config: str,
    text: str,
    steps: int | None,
    batch: int | None,
    accumulate: int | None,
    length: int | None,
    keep_models: bool,
) -> tuple[Pretraining, str]:
    """The recipe, and the learning rates where none are given: as published where the model is that one."""
    known: dict[str, Any] = pretraining.PUBLISHED if config == "llama-3.2-1b" else {}
    given = {"steps": steps, "batch": batch, "accumulate": accumulate, "length": length}
    settings = known | {name: value for name, value in given.items() if value is not None}
    recipe = Pretraining(config, text, keep_model=keep_models, **settings)
    return recipe, str(pretraining.PUBLISHED_LR) if known else "1e-3,3e-3,1e-2"


def grpo_of(model: str, data: str, steps: int | None, keep_models: bool) -> tuple[GRPO, str]:
    """The recipe, and the learning rates where none are given."""
    settings = {} if steps is None else {"steps": steps}
    return GRPO(model, data, keep_model=keep_models, **settings), "1e-4,1e-3"


RULES = ("paper", "paper:smooth=False", "paper:patience=0", "core", "greedylr")
"""The rules whose F is varied: the published one, that without a safeguard, the core alone, and this package's."""

FACTORS = (0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""Values of F: those published, and more."""


def factor_sweep_of(factors: Sequence[float]) -> str:
    """The schedulers of a sweep of F, between commas."""
    named = [(*read(rule), factor) for rule in RULES for factor in factors]
    return ",".join(write(entry, settings | {"factor": factor}) for entry, settings, factor in named)


def _processes() -> dict[str, int]:
    """Number of processes that train together, each on a batch of its own, if there are several."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    return {"processes": size} if size > 1 else {}


def _names(schedulers: str) -> list[str]:
    """The names in a list between commas, in which settings are as well."""
    names: list[str] = []
    for part in schedulers.split(","):
        if names and "=" in part and ":" not in part:
            names[-1] += f",{part}"
        else:
            names.append(part.strip())
    return [write(*read(name)) for name in names]


def _rates(lrs: str) -> list[float]:
    try:
        rates = [float(part) for part in lrs.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0 < rate < math.inf for rate in rates) or len(set(rates)) < len(rates):
        raise ValueError(f"--lrs must be positive numbers that differ, between commas, got {lrs!r}")
    return rates


def _show_models(console: Console, out: Path, folders: Sequence[Path]) -> None:
    """Say where the models are, and how many are not: what was trained before is not trained again for its model."""
    lost = sum(not (folder / MODEL).is_dir() for folder in folders)
    told = f"; {count(lost, 'run')} of before kept none" if lost else ""
    console.print(f"Models: {as_markup(out / 'runs')}/…/{MODEL}{told}", soft_wrap=True)


def _show_metrics(console: Console, compared: Compared) -> None:
    """A table of the task's own measure, in the mean over seeds."""
    rates = sorted({result.run.multiplier for result in compared.results})
    table = FittingTable("The task's own measure", "", *(words.rate(rate, True) for rate in rates))
    for name in compared.schedulers:
        cells = []
        for rate in rates:
            found = [
                result.metric
                for result in compared.results
                if (result.run.scheduler, result.run.multiplier) == (name, rate) and result.metric is not None
            ]
            cells.append(f"{statistics.mean(found):.0%}" if found else "")
        table.add_row(escape(words.title(name)), *cells)
    console.print(table)


def _show_stages(console: Console, compared: Compared, beside: dict[float, float]) -> None:
    """A table for each learning rate: the distance of the first scheduler's loss from each rival's at three stages."""
    first, *rivals = compared.schedulers
    if not rivals:
        return
    losses: dict[float, dict[str, dict[int, dict[float, float]]]] = {}
    for result in compared.results:
        run = result.run
        at_rate = losses.setdefault(run.multiplier, {})
        at_rate.setdefault(run.scheduler, {})[run.seed] = dict(outcome(result).stages)
    stages = sorted(STAGES)
    for rate, by_scheduler in sorted(losses.items()):
        table = FittingTable(
            f"LR {words.rate(rate, True)}: loss of {escape(words.title(first))} below each rival's; "
            "mean over seeds, lowest and highest",
            "rival",
            *(f"at {stage:.0%}" for stage in stages),
        )
        for rival in rivals:
            pairs = [(by_scheduler[first][seed], theirs) for seed, theirs in by_scheduler[rival].items()]
            cells = (_below([(ours[stage], theirs[stage]) for ours, theirs in pairs]) for stage in stages)
            table.add_row(escape(words.title(rival)), *cells)
        console.print(table)
    if beside and first in published.METHOD and "cosine" in rivals:
        row = ", ".join(f"{benefit:+.1f}% at {stage:.0%}" for stage, benefit in sorted(beside.items()))
        console.print(f"published, Llama 3.2 1 B against cosine, one seed: {row} ({published.SOURCE}).")


def _below(pairs: Sequence[tuple[float, float]]) -> str:
    """Share by which the first of each pair is below the second."""
    shares = [1 - ours / theirs for ours, theirs in pairs if math.isfinite(ours) and math.isfinite(theirs)]
    if not shares:
        return "failed"
    return f"{statistics.mean(shares):+.1%} [{min(shares):+.1%}, {max(shares):+.1%}]".replace("[", "\\[")


def _ends(results: Sequence[Result]) -> str:
    if not results:
        return ""
    ends = [result.final_loss for result in results]
    lost = sum(result.diverged for result in results)
    finite = [end for end in ends if math.isfinite(end)]
    mean = f"{statistics.mean(finite):.2f}" if finite else "–"
    return mean + (f", {lost} of {len(results)} diverged" if lost else "")


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.0f} MB"
