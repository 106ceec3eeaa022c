"""What a result depends on, and the key made of it: results of other settings or code are never mixed."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import greedylr
from greedylr.lab.problems import PROBLEMS
from greedylr.lab.runs import Run
from greedylr.lab.schedulers import SCHEDULERS
from greedylr.lab.setup import learning_rate

# All code of this package that a result can depend on; that of the stacks only if it was trained in one.
_CODE = (
    "control/**/*.py",
    "torch/**/*.py",
    "lab/adalrs.py",
    "lab/problems/**/*.py",
    "lab/optimizers.py",
    "lab/perturbations/**/*.py",
    "lab/runs.py",
    "lab/schedulers.py",
    "lab/setup.py",
    "lab/train.py",
)
_STACKS = ("lab/engines/batched/**/*.py",)


def settings(run: Run, *, stacked: bool) -> dict[str, Any]:
    """Everything that the result of a run depends on, as plain data; not the machine.

    Args:
        run: The run.
        stacked: Whether it is trained in a stack with others, as :attr:`Result.stacked` says. Which others these are
            shows in last bits only, and is not part of it.

    Raises:
        KeyError: If there is no such problem, optimizer or scheduler.
        ModuleNotFoundError: If the scheduler is of a package that is not installed.
    """
    return {
        "run": run._replace(multiplier=float(run.multiplier), seed=int(run.seed), steps=int(run.steps))._asdict(),
        "lr": learning_rate(run),
        "batch_size": PROBLEMS[run.problem].batch_size,
        "versions": versions() | _version_of(SCHEDULERS[run.scheduler].package),
        "stacked": stacked,
        "code": _code(stacked=stacked),
    }


def key(run: Run, *, stacked: bool) -> str:
    """A short text that stands for :func:`settings`: two runs share it only if they are the same run of the same code.

    Raises:
        KeyError: If there is no such problem, optimizer or scheduler.
        ModuleNotFoundError: If the scheduler is of a package that is not installed.
    """
    return key_of(settings(run, stacked=stacked))


def key_of(settings: dict[str, Any]) -> str:
    """The key of settings that are at hand."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """What results are made with, and its version; Python's counts because a problem is made of its sources."""
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
        made |= _version_of(SCHEDULERS[scheduler].package)
    return made


@cache
def _version_of(package: str) -> dict[str, str]:
    return {package: metadata.version(package)}


@cache
def _code(*, stacked: bool) -> str:
    """A fingerprint of this package: between releases the version alone does not tell two rules apart."""
    root = Path(greedylr.__file__).parent
    digest = hashlib.sha256()
    for pattern in _CODE + (_STACKS if stacked else ()):
        for file in sorted(root.glob(pattern)):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
