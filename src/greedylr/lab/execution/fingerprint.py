"""Key of a run, made of everything that its result depends on: results of other settings or code are never mixed.

A run's key is made of its settings, of versions, and of the code that it runs through: the modules of its own entries
in the catalogue, those of the loop that trains it, and what they import of this package. Comments, docstrings, imports
and titles are left out, and so are the catalogue's lists of entries: a new problem, or a sentence put right, leaves
every key as it is.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import platform
import sys
import textwrap
from collections.abc import Callable, Iterable
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from types import CodeType
from typing import Any

import torch

import greedylr
from greedylr.lab.catalogue import optimizers, perturbations, problems, schedulers
from greedylr.lab.catalogue.grammar import read
from greedylr.lab.execution.setup import learning_rate
from greedylr.lab.runs import STACKED, Run

_LOOP = "greedylr.lab.execution.reference_loop"
_STACKS = "greedylr.lab.execution.engines.batched"
_ON_A_TRAINER = "greedylr.lab.comparison.on_a_trainer"
_RECORDING = frozenset(  # They watch a run, or keep what it did, and leave it alone.
    {"greedylr.pulse", "greedylr.pulse.record", "greedylr.pulse.recording.recorder", "greedylr.pulse.recording.storage"}
)
_REGISTRIES = frozenset(
    module.__name__ for module in (optimizers, perturbations, problems, problems.transformers, schedulers)
)
_RULE = "greedylr.torch.scheduler"
_TEXTS = frozenset({"title", "note", "description", "cause", "meaning", "source"})
_OF_PYTHON = frozenset({"sysconfig", "unicodedata", "pydoc_data"})  # Problems are made of what these give.
_DISTRIBUTIONS = {"sklearn": "scikit-learn"}  # Those that are called otherwise than their module.
_ENCODER = json.JSONEncoder(sort_keys=True)
_OWN = "of each run its own"


def settings(run: Run, *, arithmetic: str) -> dict[str, Any]:
    """Everything that the result of a run depends on, as plain data; not the machine.

    Args:
        run: The run.
        arithmetic: What it is computed with, as :attr:`Result.arithmetic` says. Which others are in a stack with it
            shows in last bits only, and is not part of it.

    Raises:
        KeyError: If there is no such problem, optimizer, scheduler or perturbation.
        ModuleNotFoundError: If the scheduler is of a package that is not installed.
    """
    run = _plain(run)
    problem, optimizer = problems.PROBLEMS[run.problem], optimizers.OPTIMIZERS[run.optimizer]
    scheduler, perturbation = schedulers.SCHEDULERS[run.scheduler], perturbations.find(run.perturbation)
    make = optimizer.make if isinstance(optimizer.make, partial) else partial(optimizer.make)
    return {
        "run": run._asdict(),
        "lr": learning_rate(run),
        "batch_size": problem.batch_size,
        "optimizer": [f"{make.func.__module__}.{make.func.__name__}", make.keywords],
        "entries": {
            "problem": problem.version,
            "optimizer": optimizer.version,
            "scheduler": scheduler.version,
            "perturbation": 0 if perturbation is None else perturbation.kind.version,
        },
        "arithmetic": arithmetic,
        "versions": _versions(run.problem, scheduler.package, arithmetic == STACKED),
        "code": _code(run, stacked=arithmetic == STACKED),
    }


def key(run: Run, *, arithmetic: str) -> str:
    """A short text that stands for :func:`settings`: two runs share it only if they are the same run of the same code.

    Raises:
        KeyError: If there is no such problem, optimizer, scheduler or perturbation.
        ModuleNotFoundError: If the scheduler is of a package that is not installed.
    """
    return key_of(settings(run, arithmetic=arithmetic))


class Texts:
    """Texts of :func:`settings`, of many runs: what they share is looked up once, so it must stay while this is in use.

    Example:
        >>> run = Run("digits", 1.0, "cosine", seed=0, steps=4)
        >>> Texts().of(run, arithmetic="cpu") == text_of(settings(run, arithmetic="cpu"))
        True
    """

    def __init__(self) -> None:
        self._around: dict[tuple[str, ...], list[str]] = {}

    def of(self, run: Run, *, arithmetic: str) -> str:
        """The text of one run.

        Raises:
            KeyError: If there is no such problem, optimizer, scheduler or perturbation.
            ModuleNotFoundError: If the scheduler is of a package that is not installed.
        """
        shared = (run.problem, run.optimizer, run.scheduler, run.perturbation, arithmetic)
        around = self._around.get(shared)
        if around is None:
            told = settings(run, arithmetic=arithmetic) | {"lr": _OWN, "run": _OWN}
            around = self._around[shared] = text_of(told).split(text_of(_OWN))
        before, between, after = around
        run = _plain(run)
        return f"{before}{text_of(learning_rate(run))}{between}{text_of(run._asdict())}{after}"


def text_of(settings: Any) -> str:
    """Settings that are at hand as text, always the same for the same."""
    return _ENCODER.encode(settings)


def key_of(settings: dict[str, Any]) -> str:
    """The key of settings that are at hand."""
    return key_of_text(text_of(settings))


def key_of_text(text: str) -> str:
    """The key of settings whose text is at hand."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def settings_of_function(function: Callable[..., object], scheduler: str | Callable[..., object]) -> dict[str, Any]:
    """Code and versions that the result of a training function depends on, as far as they can be seen.

    Of a function of this package, or an object that is called, all that its module imports of this package counts; of
    one of the user's own, its own lines alone.

    Args:
        function: Trains.
        scheduler: The name of one in the registry, or what makes one.

    Raises:
        ModuleNotFoundError: If the scheduler is of a package that is not installed.
    """
    modules = [_ON_A_TRAINER]
    digests = []
    made = {"Python": ".".join(platform.python_version_tuple()[:2]), "torch": torch.__version__}
    if isinstance(scheduler, str):
        modules.append(schedulers.MODULES[read(scheduler)[0]])
        made |= _version_of(schedulers.SCHEDULERS[scheduler].package)
    else:
        digests.append(_digest_of_lines(scheduler))
    module = getattr(function, "__module__", type(function).__module__)
    if module.partition(".")[0] == "greedylr":
        modules.append(module)
        foreign = {name.partition(".")[0] for one in _reached((module,)) for name in _foreign(one)}
        for name in sorted(foreign - sys.stdlib_module_names - {"greedylr"}):
            made |= _version_of(_DISTRIBUTIONS.get(name, name))
    else:
        digests.append(_digest_of_lines(function))
    digests += [_digest(one) for one in sorted(_reached(tuple(modules), _RECORDING))]
    return {"code": hashlib.sha256("".join(digests).encode()).hexdigest()[:16], "versions": made}


def versions() -> dict[str, str]:
    """Versions of the packages that results are made with, to be shown beside them."""
    return {
        "greedylr": greedylr.__version__,
        "Python": platform.python_version(),
        "torch": torch.__version__,
    } | _version_of("scikit-learn")


def made_with(runs: Iterable[Run]) -> dict[str, str]:
    """The same for certain runs, with the packages that their schedulers are of.

    Raises:
        ModuleNotFoundError: If one of these is not installed.
    """
    made = versions()
    for scheduler in dict.fromkeys(run.scheduler for run in runs):
        made |= _version_of(schedulers.SCHEDULERS[scheduler].package)
    return made


def _plain(run: Run) -> Run:
    """The same run, its numbers written the one way."""
    return run._replace(multiplier=float(run.multiplier), seed=int(run.seed), steps=int(run.steps))


@cache
def _version_of(package: str) -> dict[str, str]:
    return {package: metadata.version(package)}


@cache
def _versions(problem: str, package: str, stacked: bool) -> dict[str, str]:
    """Versions of the packages that a run's problem, its scheduler and its loop are made with."""
    entries = (*problems.MODULES[problem], _STACKS + ".train" if stacked else _LOOP)
    modules = _reached(entries, _RECORDING | {"greedylr.lab.results"})
    foreign = {name.partition(".")[0] for module in modules for name in _foreign(module)}
    used = sorted(foreign - sys.stdlib_module_names - {"greedylr"})
    python = platform.python_version() if foreign & _OF_PYTHON else ".".join(platform.python_version_tuple()[:2])
    made = {"Python": python}
    for name in [*used, package]:
        made |= _version_of(_DISTRIBUTIONS.get(name, name))
    return made


def _code(run: Run, *, stacked: bool) -> str:
    """A fingerprint of the code that a run goes through."""
    return _code_of(run.problem, run.scheduler, run.perturbation.partition(":")[0], stacked)


@cache
def _code_of(problem: str, scheduler: str, perturbation: str, stacked: bool) -> str:
    entry = schedulers.MODULES[read(scheduler)[0]]
    entries = [*problems.MODULES[problem], entry]
    if perturbation != "none":
        entries.append(perturbations.KINDS[perturbation].__module__)
    loop, unused = _LOOP, _RECORDING
    if stacked:
        loop = _STACKS + ".train"
        if schedulers.SCHEDULERS[scheduler].kind == "fixed":
            unused |= {_STACKS + ".feedback"}
        elif _RULE not in _reached((entry,)):
            unused |= {_STACKS + ".greedy_rows"}
    digests = sorted(_digest(module) for module in _reached((*entries, loop), unused))
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


@cache
def _reached(modules: tuple[str, ...], unused: frozenset[str] = frozenset()) -> frozenset[str]:
    """Modules of this package, and all of it that they import, but for the lists of the catalogue."""
    reached: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in reached | unused | _REGISTRIES:
            reached.add(module)
            waiting.extend(_own(module))
    return frozenset(reached)


@cache
def _own(module: str) -> frozenset[str]:
    """The modules of this package in which what a module imports is defined."""
    return frozenset(_home(base, name) for base, name in _imported(module, running=True) if base.startswith("greedylr"))


@cache
def _foreign(module: str) -> frozenset[str]:
    """The modules of other packages that a module imports."""
    imported = _imported(module, running=True)
    return frozenset(base for base, _ in imported if not base.startswith("greedylr"))


def _home(base: str, name: str) -> str:
    """Module that defines a name that is imported from another; a package may hand it on."""
    if _file(f"{base}.{name}") is not None:
        return f"{base}.{name}"
    for further, another in _imported(base, running=False):
        if another == name and further.startswith("greedylr"):
            return _home(further, another)
    return base


@cache
def _imported(module: str, *, running: bool) -> tuple[tuple[str, str], ...]:
    """Module and name of everything that is imported anywhere in one; the whole package imports absolutely.

    Args:
        module: Its name.
        running: Whether to leave out what is for the type checker alone.
    """
    tree = _tree(module)
    imported: list[tuple[str, str]] = []
    for node in ast.walk(_running(tree) if running else tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{module} must import absolutely"
            imported.extend((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            imported.extend((alias.name, "") for alias in node.names)
    return tuple(imported)


@cache
def _tree(module: str) -> ast.Module:
    file = _file(module)
    assert file is not None, module
    return ast.parse(file.read_text(encoding="utf-8"))


def _file(module: str) -> Path | None:
    path = Path(greedylr.__file__).parent.joinpath(*module.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def _digest(module: str) -> str:
    return hashlib.sha256(ast.dump(_Bare().visit(_running(_tree(module)))).encode()).hexdigest()


def _digest_of_lines(function: Callable[..., object]) -> str:
    """Digest of a function's own code, or of that of the class of an object that is called."""
    given = ""
    while isinstance(function, partial):
        given += repr((function.args, sorted(function.keywords.items())))
        function = function.func
    code = getattr(function, "__func__", function)
    if not inspect.isfunction(code) and not inspect.isclass(code):
        code = type(code)
    try:
        if code.__name__ == "<lambda>":  # Its line may hold others.
            raise OSError
        lines = textwrap.dedent(inspect.getsource(code))
        text = ast.dump(_Bare().visit(_running(ast.parse(lines))))
    except (OSError, TypeError, SyntaxError):  # A lambda, or typed in.
        text = repr(_instructions(code.__code__)) if hasattr(code, "__code__") else repr(code)
    return hashlib.sha256((given + text).encode()).hexdigest()


def _instructions(code: CodeType) -> tuple[object, ...]:
    constants = [_instructions(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return code.co_code.hex(), code.co_names, constants


def _running(tree: ast.Module) -> ast.Module:
    """Code without what is for the type checker alone."""

    def runs(node: ast.stmt) -> bool:
        return not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING")

    return ast.Module([node for node in tree.body if runs(node)], [])


class _Bare(ast.NodeTransformer):
    """Leaves of code what can change a result: no docstrings, no imports (their code counts itself), no titles."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for field in ("body", "orelse", "finalbody"):
            body = getattr(node, field, None)
            if isinstance(body, list):
                setattr(node, field, [one for one in body if not _says_only(one)])
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [one for one in node.keywords if one.arg not in _TEXTS]
        return self.generic_visit(node)


def _says_only(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    if isinstance(node, ast.Assign):
        return all(isinstance(one, ast.Name) and one.id in _TEXTS for one in node.targets)
    return isinstance(node, (ast.Import, ast.ImportFrom))
