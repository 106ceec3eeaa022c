"""Commands and their options. What a command does is imported when it is called, so that help comes at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

import greedylr

app = typer.Typer(
    help="A learning-rate scheduler that listens to the loss.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)

lab = typer.Typer(help="Experiments: many runs, paired, kept in a store, and judged.", no_args_is_help=True)
app.add_typer(lab, name="lab")

theory = typer.Typer(help="What can be computed about the rule, and guaranteed for a run.", no_args_is_help=True)
app.add_typer(theory, name="theory")

lm = typer.Typer(
    help="Language models: fine-tuning and pre-training under several schedulers, as published and at any size.",
    no_args_is_help=True,
)
app.add_typer(lm, name="lm")

Schedulers = Annotated[
    str, typer.Option(help="Names between commas, the one in question first; greedylr lab list has them all.")
]
Rates = Annotated[
    str | None,
    typer.Option("--lrs", help="Learning rates, between commas.", show_default="the published one, or two that suit"),
]
Seeds = Annotated[int, typer.Option(min=1, help="Seeds, each a full set of runs.")]
Steps = Annotated[int | None, typer.Option(min=10, help="Optimizer steps.", show_default="as published, or 100")]
Batch = Annotated[int | None, typer.Option(min=1, help="Examples of a micro-batch.", show_default="as published, or 8")]
Jobs = Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="one a core; one with a GPU")]
KeepModels = Annotated[
    bool, typer.Option("--keep-models", help="Keep the model of every run, in OUT/runs/…/model, to be trained further.")
]
_OUT = Path("greedylr-lm")

SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="Name of a suite; greedylr lab list names them.")]
Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="A part of the suite, such as optimizer=sgd, task=translation or problem=t5-*; may be given again.",
        show_default="all",
    ),
]
StorePath = Annotated[Path, typer.Option("--store", help="The store, one SQLite file on a local disk.")]
_STORE = Path("greedylr-lab.sqlite")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"greedylr {greedylr.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of greedylr itself."""


@contextmanager
def _interrupts_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process without a word: amid the import of torch, an exception may get lost."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for results and report, on a local disk. A second run goes on from there.")
    ] = Path("greedylr-demo"),
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds, each a full set of runs.", show_default="2, or 1 with --quick")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A smoke run: seconds instead of minutes, and nothing to judge by.")
    ] = False,
) -> None:
    """Train two real models under four schedulers, print who won, and leave a report to look at.

    A CNN on handwritten digits and a small Transformer on Python's own
    source text, each at 0.1, 1 and 10 times a good learning rate. Under two
    minutes on two cores. Ctrl-C keeps and shows what is finished.
    """
    from rich.console import Console

    with _interrupts_at_once():
        from greedylr.cli.demo import run_demo

    raise typer.Exit(run_demo(Console(highlight=False), out, seeds, quick))


@app.command("report")
def report_runs(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders that a greedylr.pulse.Recorder wrote, or one store, the file that greedylr lab run wrote.",
            metavar="RUN...",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to write the page.",
            show_default="report.html in the first folder; STORE.report.html beside a store",
        ),
    ] = None,
) -> None:
    """Was the loss telling the truth? A summary of recorded runs, and a page with every decision.

    Of several runs, and of a store of the lab: one table of what to ask of a scheduler before production. How the
    runs ended, how much seeds differ, what early stopping could save, failures, recovery, composition, and how
    readable the learning rate is. docs/pulse.md defines each row.
    """
    from rich.console import Console

    console = Console(highlight=False)
    if any(run.is_file() for run in runs):
        with _interrupts_at_once():
            from greedylr.cli.readiness import report_store

        raise typer.Exit(report_store(console, runs, out))

    from greedylr.cli import pulse as commands

    raise typer.Exit(commands.report(console, runs, out))


@app.command()
def probe(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders that a greedylr.pulse.Recorder wrote: runs of one kind, which differ in their seeds.",
            metavar="RUN...",
        ),
    ],
) -> None:
    """Print where a cosine or linear schedule should peak, from recorded runs under GreedyLR.

    For those who keep their schedule and want its learning rate. Before there
    is any run, greedylr.probe in Python finds one. docs/probe.md says how well
    either does.
    """
    from rich.console import Console

    from greedylr.cli import pulse as commands

    raise typer.Exit(commands.probe(Console(highlight=False), runs))


@app.command()
def watch(
    run: Annotated[Path, typer.Argument(help="Folder that a greedylr.pulse.Recorder is writing.")],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show it once, and leave.")] = False,
) -> None:
    """Show a run live: loss, learning rate, last decisions, state of health. Ctrl-C leaves it alone."""
    from rich.console import Console

    from greedylr.cli import pulse as commands

    raise typer.Exit(commands.watch(Console(highlight=False), run, every, once))


@lab.command("run")
def run_suite(
    suite: SuiteName,
    store: StorePath = _STORE,
    engine: Annotated[
        str | None, typer.Option(help="What to train with.", show_default="what suits each run best")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Cores to use.", show_default="all")] = None,
    only: Only = None,
) -> None:
    """Train what the store lacks of a suite.

    Ctrl-C keeps what is finished, and the same command goes on from there.
    Several may work on one store at a time.
    """
    from rich.console import Console

    with _interrupts_at_once():
        from greedylr.cli import lab as commands

    raise typer.Exit(commands.run_suite(Console(highlight=False), suite, store, engine, jobs, only or ()))


@lab.command("report")
def report(
    suite: SuiteName = "quick",
    store: StorePath = _STORE,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.html, to look everything up in.", show_default="no page")
    ] = None,
    only: Only = None,
    engine: Annotated[
        str | None,
        typer.Option(help="What they were trained with, if it is a device.", show_default="the processor"),
    ] = None,
) -> None:
    """Print what the finished runs of a suite say: verdicts, regret, failures; and write it as a page.

    Of a suite whose runs are disturbed: what that did to each scheduler.
    """
    from rich.console import Console

    with _interrupts_at_once():
        from greedylr.cli import lab as commands

    raise typer.Exit(commands.report(Console(highlight=False), suite, store, out, only or (), engine))


@lab.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="A .parquet file, with all curves, or a .csv file, without.")],
    store: StorePath = _STORE,
) -> None:
    """Write every run in the store to a file for other programs."""
    from rich.console import Console

    with _interrupts_at_once():
        from greedylr.cli import lab as commands

    raise typer.Exit(commands.export_store(Console(highlight=False), store, file))


@lab.command("list")
def show_registries(
    as_json: Annotated[bool, typer.Option("--json", help="For a program rather than a person.")] = False,
) -> None:
    """List the suites, and what they are made of."""
    from rich.console import Console

    with _interrupts_at_once():
        from greedylr.cli import lab as commands

    raise typer.Exit(commands.show_registries(Console(highlight=False), as_json))


@lm.command("finetune")
def finetune(
    model: Annotated[str, typer.Argument(help="tiny, a name from greedylr lm list, a folder, or a name on the hub.")],
    data: Annotated[
        str, typer.Argument(help="A set from greedylr lm list, several joined by +, a .jsonl file, or a hub's name.")
    ],
    schedulers: Schedulers = "greedylr,paper,cosine",
    lrs: Rates = None,
    seeds: Seeds = 3,
    out: Annotated[Path, typer.Option(help="Folder for results, page and traces.")] = _OUT / "finetune",
    lora: Annotated[
        bool | None,
        typer.Option("--lora/--full", help="Adapters, or all weights.", show_default="as published, or all"),
    ] = None,
    steps: Steps = None,
    batch: Batch = None,
    accumulate: Annotated[int, typer.Option(min=1, help="Micro-batches of a step.")] = 1,
    length: Annotated[
        int | None, typer.Option(min=8, help="Most tokens of an example.", show_default="the longest's")
    ] = None,
    examples: Annotated[
        int | None, typer.Option(min=8, help="Most examples to train on.", show_default="as published, or all")
    ] = None,
    in_turns: Annotated[
        bool, typer.Option("--in-turns", help="Take several sets in turns, block after block, not shuffled.")
    ] = False,
    keep_models: KeepModels = False,
    jobs: Jobs = None,
) -> None:
    """Fine-tune a model under several schedulers, paired, and leave a page.

    Ctrl-C keeps what is finished, and the same command goes on from there.
    Of the published models the defaults are as published; tiny is made
    here, and takes minutes.
    """
    from rich.console import Console

    with _interrupts_at_once():
        from greedylr.cli import language_models as commands

    recipe, usual = commands.fine_tuning_of(
        model, data, lora, steps, batch, accumulate, length, examples, in_turns, keep_models
    )
    console = Console(highlight=False)
    shown = commands.show_fine_tuning
    raise typer.Exit(commands.compare(console, recipe, schedulers, lrs or usual, seeds, out, jobs, shown))


@lm.command("pretrain")
def pretrain(
    config: Annotated[str, typer.Argument(help="A name from greedylr lm list, or the JSON file of a configuration.")],
    text: Annotated[str, typer.Argument(help="A text from greedylr lm list, a .txt file, or a folder of them.")],
    schedulers: Schedulers = "greedylr,cosine,linear,wsd",
    lrs: Rates = None,
    seeds: Seeds = 3,
    out: Annotated[Path, typer.Option(help="Folder for results, page and traces.")] = _OUT / "pretrain",
    steps: Annotated[
        int | None, typer.Option(min=10, help="Optimizer steps.", show_default="as published, or 300")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Windows of a micro-batch.", show_default="as published, or 16")
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Micro-batches of a step.", show_default="as published, or 1")
    ] = None,
    length: Annotated[
        int | None, typer.Option(min=8, help="Tokens of a window.", show_default="2048 for the published one, or 128")
    ] = None,
    keep_models: KeepModels = False,
    jobs: Jobs = None,
) -> None:
    """Pre-train a model from new weights under several schedulers, paired, and leave a page.

    Ctrl-C keeps what is finished, and the same command goes on from there.
    """
    from rich.console import Console

    with _interrupts_at_once():
        from greedylr.cli import language_models as commands

    recipe, usual = commands.pretraining_of(config, text, steps, batch, accumulate, length, keep_models)
    console = Console(highlight=False)
    shown = commands.show_pretraining
    raise typer.Exit(commands.compare(console, recipe, schedulers, lrs or usual, seeds, out, jobs, shown))


@lm.command("factor-sweep")
def factor_sweep(
    model: Annotated[str, typer.Argument(help="As for greedylr lm finetune.")] = "tiny",
    data: Annotated[str, typer.Argument(help="As for greedylr lm finetune.")] = "instructions",
    factors: Annotated[
        list[float] | None, typer.Option("--factor", help="A value of F; may be given several times.")
    ] = None,
    lrs: Rates = None,
    seeds: Seeds = 3,
    out: Annotated[Path, typer.Option(help="Folder for results, page and traces.")] = _OUT / "factor-sweep",
    steps: Annotated[int, typer.Option(min=10, help="Optimizer steps.")] = 250,
    batch: Batch = None,
    jobs: Jobs = None,
) -> None:
    """Fine-tune with the published rule, parts of it, and this package's at several F: which of them diverge?"""
    from rich.console import Console

    with _interrupts_at_once():
        from greedylr.cli import language_models as commands

    recipe, usual = commands.fine_tuning_of(model, data, None, steps, batch, 1, None, None, False, False)
    schedulers = commands.factor_sweep_of(factors or commands.FACTORS)
    console = Console(highlight=False)
    shown = commands.show_factors
    raise typer.Exit(commands.compare(console, recipe, schedulers, lrs or usual, seeds, out, jobs, shown))


@lm.command("grpo")
def grpo(
    model: Annotated[str, typer.Argument(help="As for greedylr lm finetune.")],
    data: Annotated[str, typer.Argument(help="As for greedylr lm finetune; rows with a prompt and a completion.")],
    schedulers: Schedulers = "greedylr,paper,cosine,constant",
    lrs: Rates = None,
    seeds: Seeds = 3,
    out: Annotated[Path, typer.Option(help="Folder for results, page and traces.")] = _OUT / "grpo",
    steps: Annotated[int | None, typer.Option(min=10, help="Optimizer steps.", show_default="100")] = None,
    keep_models: KeepModels = False,
    jobs: Jobs = None,
) -> None:
    """Train on rewards under several schedulers, paired: an answer earns its likeness to the right one."""
    from rich.console import Console

    with _interrupts_at_once():
        from greedylr.cli import language_models as commands

    recipe, usual = commands.grpo_of(model, data, steps, keep_models)
    console = Console(highlight=False)
    raise typer.Exit(commands.compare(console, recipe, schedulers, lrs or usual, seeds, out, jobs, commands.show_grpo))


@lm.command("list")
def list_language_models() -> None:
    """List the models and data that have names, and what each model needs."""
    from rich.console import Console

    with _interrupts_at_once():
        from greedylr.cli import language_models as commands

    raise typer.Exit(commands.list_all(Console(highlight=False)))


@theory.command("bound")
def theory_bound(
    run: Annotated[Path, typer.Argument(help="Folder that a greedylr.pulse.Recorder wrote.")],
    smoothness: Annotated[
        float,
        typer.Option(help="The largest smoothness constant of any example's loss: greedylr.theory.sharpness finds it."),
    ],
    distance: Annotated[float, typer.Option(help="From the initial parameters to the minimum.")],
    noise: Annotated[float, typer.Option(help="Standard deviation of the gradient at the minimum.")] = 0.0,
) -> None:
    """Print the guarantee of SGD theory for the learning rates of a recorded run."""
    from rich.console import Console

    from greedylr.cli import theory as commands

    raise typer.Exit(commands.bound(Console(highlight=False), run, smoothness, distance, noise))


@theory.command("factor")
def theory_factor(
    factors: Annotated[
        list[float] | None, typer.Option("--factor", help="A value of F; may be given several times.")
    ] = None,
    condition: Annotated[float, typer.Option(min=1.0, help="Largest over smallest curvature.")] = 100.0,
    dimensions: Annotated[int, typer.Option(min=1, help="Of the quadratic.")] = 10,
    out: Annotated[Path | None, typer.Option(help="A page with the figure.", show_default="no page")] = None,
) -> None:
    """Print the growth rate of the published core rule on a quadratic against F."""
    from rich.console import Console

    from greedylr.cli import theory as commands

    chosen = factors or commands.FACTORS
    raise typer.Exit(commands.factor(Console(highlight=False), chosen, condition, dimensions, out))
