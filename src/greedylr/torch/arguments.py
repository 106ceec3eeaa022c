"""Arguments of :class:`greedylr.GreedyLR`: what was given, what is not known, what a loss may be."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from enum import Enum
from typing import Any, Final, Literal, SupportsFloat

from torch import Tensor

from greedylr.control.default.config import DefaultConfig
from greedylr.control.paper.config import PaperConfig
from greedylr.torch.gradient import whole


class Unset(Enum):
    """Default of an argument whose value is then another's to say."""

    UNSET = "as in config"

    def __repr__(self) -> str:
        return f"<{self.value}>"


UNSET: Final[Literal[Unset.UNSET]] = Unset.UNSET

DEFAULT_SETTINGS = frozenset(field.name for field in fields(DefaultConfig) if field.init)
PAPER_SETTINGS = frozenset(field.name for field in fields(PaperConfig) if field.init)


def settings_given(**settings: Any) -> dict[str, Any]:
    """Settings that were given."""
    return {name: value for name, value in settings.items() if value is not UNSET}


def refuse_unknown(call: str, function: Callable[..., Any], unknown: Mapping[str, Any]) -> None:
    """Raise if there are arguments that are not known, and say what to write instead.

    Args:
        call: How the function is called, for the message.
        function: What was called.
        unknown: The arguments.

    Raises:
        TypeError: If there is one.
    """
    if not unknown:
        return
    left_out = ("self", "optimizer", "unknown", "settings")
    known = [name for name in inspect.signature(function).parameters if name not in left_out]
    if "settings" in inspect.signature(function).parameters:
        known += sorted(PAPER_SETTINGS)
    said = []
    settings = [name for name in unknown if call == "GreedyLR" and name in DEFAULT_SETTINGS]
    if settings:
        written = ", ".join(f"{name}={unknown[name]!r}" for name in settings)
        named = f"argument{'s' * (len(settings) > 1)} {', '.join(map(repr, settings))}"
        said.append(f"no {named} (write GreedyLR(optimizer, config=greedylr.DefaultConfig({written})))")
    for name in unknown:
        if name in settings:
            continue
        hints = [hint.format(name=name) for hint, names in _ELSEWHERE.items() if name in names]
        hint = hints[0] if hints and call == "GreedyLR" else ""
        near = difflib.get_close_matches(name, known, 1)
        hint = hint or (f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}")
        said.append(f"no argument {name!r} ({hint})")
    raise TypeError(f"{call} has {'; '.join(said)}")


def check_composition(composition: object) -> None:
    """Raise if a composition of a batch is none.

    Raises:
        TypeError: If it is no mapping.
    """
    if composition is not None and composition.__class__ is not dict and not isinstance(composition, Mapping):
        raise TypeError(f"composition must be a mapping of names to numbers and labels, got {composition!r}")


def checked(loss: SupportsFloat | None) -> float | Tensor:
    """A loss as a float, or as a tensor with one element, detached.

    Raises:
        TypeError: If there is none, or it is no number.
        ValueError: If it is a tensor with more than one element, or not of real numbers on a real device.
    """
    if isinstance(loss, Tensor):
        tensor = whole(loss)
        if tensor.numel() != 1 or tensor.is_complex() or tensor.device.type == "meta":
            raise ValueError(
                f"loss must be one real number, got a tensor of shape {tuple(tensor.shape)}, {tensor.dtype}, "
                f"on {tensor.device}"
            )
        return tensor.detach()
    if loss is None:
        raise TypeError(
            "GreedyLR.step() needs the loss: call scheduler.step(loss) after optimizer.step(). What steps schedulers "
            "without a loss (SequentialLR, ChainedScheduler, some trainers) cannot step this one"
        )
    if isinstance(loss, (str, bytes)) or getattr(getattr(loss, "dtype", None), "kind", "f") == "c":
        raise TypeError(f"loss must be a float or a tensor with one element, got {loss!r}")
    return float(loss)


_ELSEWHERE = {
    "it belongs to the published algorithm: GreedyLR.paper(optimizer, {name}=...)": (
        *("patience", "threshold", "threshold_mode", "cooldown", "warmup"),
        *("eps", "smooth", "window_size", "reset_start"),
    ),
    "write min_scale=..., a multiple of the initial one, or GreedyLR.paper(optimizer, min_lr=...)": (
        *("min_lr", "eta_min", "final_lr"),
    ),
    "write max_scale=..., a multiple of the initial one, or GreedyLR.paper(optimizer, max_lr=...)": (
        *("max_lr", "base_lr"),
    ),
    "write total_steps=..., the number of optimizer steps in the whole run": (
        *("T_max", "T_0", "num_training_steps", "max_steps", "epochs", "steps_per_epoch", "total_iters"),
    ),
    "write warmup_steps=..., the number of optimizer steps": (
        *("num_warmup_steps", "warmup_ratio", "warmup_epochs", "pct_start"),
    ),
    "to go on with an earlier run, load its state_dict": ("last_epoch",),
    "the initial learning rates are those in the optimizer": ("lr",),
    "write config=greedylr.DefaultConfig(start_scale=...), a multiple of the initial one": ("start_lr",),
}
"""Arguments of other schedulers, with what to write here instead."""
