"""Back to a snapshot after the loss blew up, with a smaller learning rate, instead of a dead run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import torch

from greedylr.control.decision import Action, Decision
from greedylr.torch.snapshot import Snapshot, SnapshotError, Training

MARGIN = 5
"""Losses that a snapshot must have been followed by without trouble, before it is gone back to."""

WAIT = 20
"""Steps after which bad batches are taken to be over."""


class Marked(Protocol):
    """Interface of a log of rescues: :class:`greedylr.pulse.Recorder` has it."""

    def mark(self, name: str, **details: Any) -> None:
        """Note something at the last step."""


class RescueError(RuntimeError):
    """Going back did not help, or there is nothing to go back to."""


class _Point(NamedTuple):
    """A step to go back to."""

    step: int
    scheduler: dict[str, Any]
    snapshot: Snapshot


class Rescue:
    """Keeps snapshots of a run in host memory, and goes back to one when the loss is not finite or explodes.

    Call :meth:`step` after every ``scheduler.step``. After trouble it restores model, optimizer and scheduler in
    place, cuts the learning rate, and training goes on with the batches that come next: data and random numbers are
    not rewound, and the scheduler's count of steps is not either, so that a known horizon still ends where it should.
    Trouble is what the scheduler calls NON_FINITE or EXPLOSION (the paper family knows the first only). Two snapshots
    are held: the newest that was followed by five losses without trouble is restored, and the older one if that has
    been tried. What has not changed between them, a frozen base for one, is held once. When the optimizer gets other
    parameter groups, or the scheduler loads a state, the next :meth:`step` begins anew with a snapshot of then.

    All parameters and buffers go back, trained or not, in a checkpoint or not, and those that the optimizer alone
    has. A buffer that is in no checkpoint and has got another shape since is a cache, and stays. Of the optimizer, its
    state goes back and what it keeps in its parameter groups. Everything goes back, or nothing.

    An explosion that is there again right after going back is not of the model's making: there were bad batches, or the
    data have changed. So it goes on for twenty steps, and then goes back once more, with the learning rate of then: bad
    batches are over by that time, and what they did is undone. If it explodes again, that is let be.

    Args:
        model: What is trained.
        optimizer: Its optimizer, with any parameter groups.
        scheduler: A :class:`greedylr.GreedyLR`.
        every: Steps between snapshots. Each copies everything to the host.
        factor: What the learning rate is multiplied by after going back, in (0, 1].
        most: Rescues in a row, without a new snapshot in between, after which it gives up.
        also: Further objects with ``state_dict`` and ``load_state_dict``: an average of the weights, a ``GradScaler``.
        recorder: Where rescues are marked.

    Raises:
        ValueError: If an argument is outside what is stated above.

    Example:
        >>> from greedylr import GreedyLR
        >>> model = torch.nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> scheduler = GreedyLR(optimizer)
        >>> rescue = Rescue(model, optimizer, scheduler, every=10)
        >>> for step in range(30):
        ...     loss = model(torch.ones(1)).square().sum() * (float("nan") if step == 20 else 1.0)
        ...     loss.backward(); optimizer.step(); optimizer.zero_grad()
        ...     scheduler.step(loss)
        ...     if rescue.step():
        ...         print(f"step {step + 1}: back to step {rescue.last}")
        step 21: back to step 10
        >>> bool(model.weight.isfinite())
        True
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        *,
        every: int = 100,
        factor: float = 0.5,
        most: int = 3,
        also: Iterable[Any] = (),
        recorder: Marked | None = None,
    ) -> None:
        for name, value in {"every": every, "most": most}.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        if not 0 < factor <= 1:
            raise ValueError(f"factor must be a number with 0 < factor <= 1, got {factor!r}")
        self.last = -1
        """The step that was last gone back to; -1 if there was no rescue."""
        self._training = Training(model, optimizer, also)
        self._scheduler, self._recorder = scheduler, recorder
        self._every, self._factor, self._most = every, factor, most
        self._in_a_row = 0
        self._trouble: Decision | None = None
        self._back_at = -1  # the step at which it last went back
        self._let_be = False  # explosions, until the next snapshot
        self._again: tuple[int, _Point] | None = None  # the step at which to go back once more, and where to
        self._seen = scheduler.last_epoch  # the last step that was observed
        self._loaded = False  # whether a state was loaded since the last snapshot
        self._points: list[_Point] = []
        self._take()
        self._unsubscribe = scheduler.subscribe(self)

    def watch(self, scheduler: Any) -> None:
        """Take note of a state that was loaded; called by the scheduler. Snapshots from before are of another run."""
        if scheduler.last_epoch != self._seen:
            self._seen, self._loaded, self._trouble = scheduler.last_epoch, True, None

    def __call__(self, decision: Decision) -> None:
        """Observe one decision."""
        self._seen = decision.step
        if decision.action is Action.NON_FINITE or (decision.action is Action.EXPLOSION and not self._let_be):
            self._trouble = decision

    def step(self) -> bool:
        """Take a snapshot if it is time; go back to one if there was trouble.

        Returns:
            Whether it has gone back.

        Raises:
            RescueError: If that has been done too often in a row, if there is no snapshot of the model and parameter
                groups as they are now, or if one of ``also`` refuses its state. Nothing has changed then.
            ValueError: From the recorder, if it was closed. Nothing has changed then either.
        """
        if not self._points:  # closed
            return False
        step = self._scheduler.last_epoch
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            return self._go_back(trouble, step)
        if self._outdated():
            self._points, self._again = [], None
            self._take()
            self._loaded, self._in_a_row, self._back_at, self._let_be = False, 0, -1, False
            return False
        if self._again is not None:
            due, point = self._again
            if step < due:
                return False
            self._restore(point, step, 1.0, "once more, bad batches may be over")
            self._again = None
            return True
        healthy_since = max(self._points[-1].step, self._back_at)
        if step - healthy_since >= self._every:
            del self._points[:-1]  # before the new one is taken: two at most
            self._take()
            self._in_a_row, self._let_be = 0, False
        return False

    def close(self) -> None:
        """Stop watching, and free the snapshots; :meth:`step` does nothing from here on."""
        self._unsubscribe()
        self._points, self._again = [], None

    def _go_back(self, trouble: Decision, step: int) -> bool:
        # What may raise comes first, so that nothing is done by halves.
        if trouble.action is Action.EXPLOSION and self._back_at >= 0 and step - self._back_at <= MARGIN:
            self._mark("explosion let be", "as high at the snapshot: bad batches, or other data")
            self._let_be = True
            self._again = (step + WAIT, self._points[-1])
            return False
        cause = trouble.action.name.lower()
        if self._in_a_row == self._most:
            raise RescueError(
                f"gave up at step {step}: {self._most} rescues in a row did not help ({cause}, loss {trouble.loss:g}); "
                f"the last one went back to step {self.last}. Look at the data, clip gradients, or start with a "
                f"lower learning rate"
            )
        impossible = self._impossible()
        if impossible:
            raise RescueError(f"cannot go back at step {step} ({cause}, loss {trouble.loss:g}): {impossible}")
        sound = [one for one in self._points if step - one.step >= MARGIN]
        chosen = (sound or self._points)[-1 if self._in_a_row == 0 else 0]
        # One cut more for each rescue in a row: what did not help is not tried again.
        self._restore(chosen, step, self._factor ** (self._in_a_row + 1), cause)
        self._again = None
        self._in_a_row += 1
        # What was taken in between is on the way to the trouble.
        self._points = [one for one in self._points if one.step <= chosen.step]
        return True

    def _outdated(self) -> bool:
        newest = self._points[-1].snapshot
        return self._loaded or newest.uninitialised or newest.groups != self._training.groups

    def _impossible(self) -> str:
        """Reason for having no snapshot to go back to; empty if there is one."""
        now, before = self._training.groups, self._points[-1]
        if self._loaded:
            return "a state was loaded, and the snapshots are from before. Make the Rescue when all states are loaded"
        if before.snapshot.uninitialised:
            return "the model had lazy parameters when the snapshot was taken. Run it once before the Rescue is made"
        if before.snapshot.groups != now:
            return (
                f"the optimizer has parameter groups of {now} parameters, and had {before.snapshot.groups} at the last "
                f"snapshot, step {before.step}. Call step() of the Rescue after groups were added and before the next "
                f"loss"
            )
        return ""

    def _mark(self, name: str, why: str) -> None:
        if self._recorder is not None:
            self._recorder.mark(name, why=why)

    def _take(self) -> None:
        before = self._points[-1].snapshot if self._points else None
        scheduler = self._scheduler
        self._points.append(_Point(scheduler.last_epoch, scheduler.state_dict(), self._training.snapshot(before)))

    def _restore(self, point: _Point, now: int, factor: float, cause: str) -> None:
        def mark() -> None:
            self._mark("rescue", f"{cause}: back to step {point.step}")

        try:
            self._training.restore(point.snapshot, commit=mark)
        except SnapshotError as error:
            advice = "" if error.__cause__ else ". Make a new Rescue when the model changes"
            raise RescueError(f"cannot go back from step {now} to step {point.step}: {error}{advice}") from error
        self.last, self._back_at = point.step, now
        self._scheduler.go_back(point.scheduler, factor)
