"""The peak of a schedule that has the mean learning rate of a recorded run."""

from __future__ import annotations

import numpy as np

from greedylr.pulse.record import Record

LEAST = 100
"""Steps that a run must have."""


def peak(record: Record) -> float:
    r"""The learning rate at which a cosine, or a line down to zero, peaks that has the same mean as the run.

    Either has half of its peak as its mean, so it is :math:`\tfrac2T \sum_t \eta_t`, with :math:`\eta_t` the learning
    rate that step :math:`t` was made at. A rule that listens ends up near that mean from initial learning rates that
    are decades apart; its own peak it may have passed at once, or held for the whole run.

    Args:
        record: A run that is over. Its first parameter group counts.

    Raises:
        ValueError: If it has fewer than a hundred steps.

    Example:
        >>> import tempfile, torch
        >>> from greedylr import GreedyLR
        >>> from greedylr.pulse import Recorder, Trace
        >>> scheduler = GreedyLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), total_steps=1000)
        >>> folder = tempfile.mkdtemp()
        >>> with Recorder(folder, scheduler):
        ...     for step in range(1000):
        ...         scheduler.step(1.0)
        >>> round(peak(Trace.load(folder)), 3)
        0.104
    """
    if len(record.steps) < LEAST:
        raise ValueError(f"the run must have at least {LEAST} steps, got {len(record.steps)}")
    rates = np.concatenate([record.first_lrs[:1], record.lrs[:-1, 0]])
    return 2 * float(np.nanmean(rates))
