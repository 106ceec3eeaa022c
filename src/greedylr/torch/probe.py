"""A learning rate found before the training, for those who keep their schedule."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from greedylr.control import sweep
from greedylr.extras import missing
from greedylr.torch import distributed as ranks
from greedylr.torch.parameter_groups import lr_of
from greedylr.torch.snapshot import Training

if TYPE_CHECKING:
    import plotly.graph_objects as go  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Probe:
    """Learning rate that a probe found, and what it was told from.

    Attributes:
        lr: The learning rate, of the first parameter group.
        low: The lowest that one of the sweeps alone would have said.
        high: The highest.
        scale: The learning rate as a multiple of the optimizer's; what to multiply that of every group by.
        lrs: Learning rates of the sweeps, ascending.
        losses: Minibatch losses of each sweep, at these learning rates; a sweep ends where the loss has exploded.
        smoothed: The losses, smoothed over an eighth of a decade and averaged over the sweeps; NaN where not all have
            one.
    """

    lr: float
    low: float
    high: float
    scale: float
    lrs: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]
    smoothed: tuple[float, ...]

    def __str__(self) -> str:
        """The learning rate and its range."""
        return f"learning rate {self.lr:.2g}, sweeps alone from {self.low:.2g} to {self.high:.2g}"

    def plot(self) -> go.Figure:
        """Loss against the learning rate, as a Plotly figure.

        Raises:
            ModuleNotFoundError: If Plotly is not installed.
        """
        try:
            import plotly.graph_objects as go
        except ModuleNotFoundError as error:
            raise missing(error, "demo") from error
        figure = go.Figure()
        for number, losses in enumerate(self.losses, start=1):
            figure.add_scatter(
                x=self.lrs, y=losses, mode="markers", marker={"size": 3, "color": "#9aa3ad"}, name=f"sweep {number}"
            )
        figure.add_scatter(x=self.lrs, y=self.smoothed, line={"color": "#1f6feb", "width": 2.5}, name="smoothed")
        figure.add_vrect(x0=self.low, x1=self.high, fillcolor="#1f6feb", opacity=0.12, line_width=0)
        figure.add_vline(x=self.lr, line_dash="dash")
        # On a logarithmic axis Plotly wants the place of a text as a logarithm, and of a line as it is.
        figure.add_annotation(
            x=math.log10(self.lr), y=1, yref="paper", text=f"{self.lr:.2g}", showarrow=False, xanchor="right", xshift=-4
        )
        figure.update_xaxes(type="log", title_text="learning rate", exponentformat="power")
        lowest = min(loss for loss in self.smoothed if math.isfinite(loss))
        room = 0.3 * (self.smoothed[0] - lowest)
        figure.update_yaxes(title_text="minibatch loss", range=[lowest - room, self.smoothed[0] + room])
        figure.update_layout(template="plotly_white")
        return figure


def probe(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: Callable[[torch.nn.Module, Any], Tensor],
    batches: Iterable[Any],
    *,
    lowest: float = 1e-3,
    highest: float = 1e3,
    decade_steps: int = 25,
    sweeps: int = 3,
    scaler: Any = None,
    also: Iterable[Any] = (),
) -> Probe:
    r"""Find a learning rate for a schedule that peaks there, such as cosine; then put everything back.

    In each sweep the learning rates of all groups grow tenfold in ``decade_steps`` optimizer steps, from ``lowest`` to
    ``highest`` times what they are, or until the loss is not finite or above four times what it was. The losses are
    smoothed over :math:`\tau = \max(4, D/8)` steps, :math:`D` = ``decade_steps``, and averaged over the sweeps:
    :math:`m(\eta)`. It falls from :math:`m_0`, after the first :math:`2\tau` steps, to its lowest, :math:`m^*`. The
    suggestion is a third of the lowest learning rate with 98 % of that:

    .. math:: \eta = \tfrac13 \min \{ \eta' : m_0 - m(\eta') \ge 0.98 \, (m_0 - m^*) \}.

    Afterwards everything is as it was: parameters and buffers, gradients, the optimizer's state and learning rates, the
    scaler, training and evaluation mode, the random state of Python, NumPy and torch, and that of the loader's
    generator. So it is after an exception or an interrupt.

    It says what makes the training loss fall fastest without exploding. For a model that was pre-trained that is far
    too high, and so it is where few data come again and again: the training loss does not see the harm.

    Args:
        model: What is to be trained.
        optimizer: Its optimizer. The learning rates in it are a first guess; they keep their ratio.
        loss_fn: Takes the model and a batch, returns the loss, a tensor with one element.
        batches: A ``DataLoader`` or any other iterable; begun anew when it ends.
        lowest: Where a sweep starts, as a multiple of the learning rates in the optimizer, more than 0.
        highest: Where it ends at the latest, likewise, at least ten times ``lowest``.
        decade_steps: Optimizer steps in which the learning rates grow tenfold, at least 8.
        sweeps: How many, at least 1; each with the batches that come next.
        scaler: A ``torch.amp.GradScaler``, if the training uses one.
        also: Further objects with ``state_dict`` and ``load_state_dict`` that ``loss_fn`` changes.

    Returns:
        The learning rate, its range over the sweeps, and the curves.

    Raises:
        ValueError: If an argument is outside what is stated above; if there are too few batches; or if no learning rate
            can be told: the loss did not fall, or it still fell at the highest.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
        >>> optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        >>> batches = [torch.randn(16, 8) for _ in range(200)]
        >>> def loss_fn(model, batch):
        ...     return (model(batch) - batch.norm(dim=1, keepdim=True)).square().mean()
        >>> found = probe(model, optimizer, loss_fn, batches)
        >>> 1e-3 < found.low <= found.high < 0.1
        True
        >>> for group in optimizer.param_groups:
        ...     group["lr"] *= found.scale

    References:
        Sweeps of the learning rate: L. N. Smith, arXiv:1506.01186. How well they do: ``docs/probe.md``.
    """
    _check(lowest, highest, decade_steps, sweeps)
    initial = [lr_of(group) for group in optimizer.param_groups]
    if not 0 < initial[0] < math.inf:
        raise ValueError(f"the first parameter group must have a learning rate above 0 as a first guess: {initial[0]}")
    if any("initial_lr" in group for group in optimizer.param_groups):
        raise ValueError("the optimizer has a scheduler already: probe first, then build the scheduler")
    training = Training(model, optimizer, [*also, *([] if scaler is None else [scaler])])
    scales = sweep.scales(lowest, highest, decade_steps)
    with _kept(model, optimizer, batches):
        endless, snapshot = _endless(batches), training.snapshot()
        if snapshot.uninitialised:
            raise ValueError("the model has lazy parameters: run it once before the probe")
        every: list[list[float]] = []
        for _ in range(sweeps):
            losses: list[float] = []
            every.append(losses)
            try:
                for scale in scales:
                    _set(optimizer, initial, scale)
                    losses.append(_step(model, optimizer, loss_fn, next(endless), scaler))
                    if sweep.is_over(losses, decade_steps):
                        break
            finally:
                training.restore(snapshot)
    found = sweep.read(scales, every, decade_steps)
    lr = initial[0]
    return Probe(
        lr=lr * found.scale,
        low=lr * found.low,
        high=lr * found.high,
        scale=found.scale,
        lrs=tuple(lr * scale for scale in scales),
        losses=tuple(map(tuple, every)),
        smoothed=tuple(found.smoothed),
    )


def _check(lowest: float, highest: float, decade_steps: int, sweeps: int) -> None:
    if not 0 < lowest < math.inf:
        raise ValueError(f"lowest must be a number with 0 < lowest < inf, got {lowest!r}")
    if not 10 * lowest <= highest < math.inf:
        raise ValueError(f"highest must be a finite number of at least 10 * lowest, got {highest!r} and {lowest!r}")
    for name, value, least in (("decade_steps", decade_steps, 8), ("sweeps", sweeps, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


def _endless(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        count = 0
        for count, batch in enumerate(batches, start=1):  # noqa: B007
            yield batch
        if not count:
            raise ValueError(
                "batches are empty, or ran out and cannot be begun anew: give a DataLoader, a list, or more of them"
            )


def _set(optimizer: torch.optim.Optimizer, initial: list[float], scale: float) -> None:
    for group, lr in zip(optimizer.param_groups, initial):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr * scale)
        else:
            group["lr"] = lr * scale


def _step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: Callable[[torch.nn.Module, Any], Tensor],
    batch: Any,
    scaler: Any,
) -> float:
    """One optimizer step; returns the loss before it, the mean over the ranks."""
    optimizer.zero_grad()
    loss = loss_fn(model, batch)
    if scaler is None:
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    else:
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    loss = loss.detach().clone()
    if ranks.is_active():  # All ranks must end a sweep at the same step.
        dist.all_reduce(loss)
        loss /= dist.get_world_size()
    return float(loss)


@contextmanager
def _kept(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batches: Any) -> Iterator[None]:
    """Put back what a snapshot has not: learning rates, gradients, modes, random states."""
    lrs = [group["lr"].clone() if isinstance(group["lr"], Tensor) else group["lr"] for group in optimizer.param_groups]
    weights = [weight for group in optimizer.param_groups for weight in group["params"]] + [*model.parameters()]
    gradients = [weight.grad for weight in weights]
    modes = [(module, module.training) for module in model.modules()]
    loaders = (batches, getattr(batches, "sampler", None))
    generators = [one for one in (getattr(loader, "generator", None) for loader in loaders) if one is not None]
    states = [one.get_state() for one in generators]
    python = random.getstate()
    numpy = sys.modules.get("numpy")
    numbers = None if numpy is None else numpy.random.get_state()
    for weight in weights:
        weight.grad = None
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(numbers)
        for generator, state in zip(generators, states):
            generator.set_state(state)
        for module, mode in modes:
            module.training = mode
        for weight, gradient in zip(weights, gradients):
            weight.grad = gradient
        for group, lr in zip(optimizer.param_groups, lrs):
            if isinstance(lr, Tensor):
                group["lr"].copy_(lr)
            else:
                group["lr"] = lr
