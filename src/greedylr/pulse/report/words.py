"""Numbers and decisions in words, for terminal and page."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from greedylr.control.decision import Decision
from greedylr.presentation.words import count
from greedylr.pulse.diagnosis.audit import Audited, Shares
from greedylr.pulse.diagnosis.composition import Source
from greedylr.pulse.diagnosis.pooled import Pooled
from greedylr.pulse.diagnosis.reading import Reading
from greedylr.pulse.trace import Trace


def number(value: float) -> str:
    """A number in four digits.

    Example:
        >>> number(0.000123456), number(float("nan"))
        ('0.0001235', 'not finite')
    """
    return f"{value:.4g}" if math.isfinite(value) else "not finite"


def reason(decision: Decision) -> str:
    """Decision and its reason, in a sentence.

    Example:
        >>> from greedylr import Action
        >>> evidence = {"mean": 1.0, "previous_mean": 2.0, "standard_error": 0.1}
        >>> reason(Decision(40, 0.9, Action.RAISED, (0.1,), (0.2,), evidence))
        'Step 40, raised: the loss improved (mean 1, previous mean 2, standard error 0.1). LR 0.1 → 0.2.'
    """
    numbers = ", ".join(f"{name.replace('_', ' ')} {number(value)}" for name, value in decision.evidence.items())
    why = f" ({numbers})" if numbers else f" (loss {number(decision.loss)})"
    before, after = decision.lr_before[0], decision.lr_after[0]
    lr = f"LR {before:.3g} → {after:.3g}." if before != after else f"LR {after:.3g}."
    return f"Step {decision.step}, {decision.action.value}{why}. {lr}"


def verdict(one: Audited) -> str:
    """Verdict on a move, in a sentence.

    Example:
        >>> from greedylr import Action
        >>> from greedylr.pulse.diagnosis.audit import Verdict
        >>> move = Decision(40, 0.9, Action.RAISED, (0.1,), (0.2,), {})
        >>> verdict(Audited(move, Verdict.REFUTED, 1.0, 1.5, 0.1, 0.001, "loss", "first third"))
        'Refuted: the loss then came out above what the trend before predicted (1.5, not 1 ± 0.2; p = 0.001).'
    """
    sentence = one.verdict.value.capitalize()
    if math.isnan(one.predicted):
        return f"{sentence}."
    judge = "" if one.judge == "loss" else f", {one.judge}"
    interval = f"{number(one.actual)}, not {number(one.predicted)} ± {2 * one.standard_error:.2g}"
    return f"{sentence} ({interval}; p = {one.p_value:.2g}{judge})."


def share(part: int, whole: int) -> str:
    """A part of a whole: its number and its percentage."""
    return f"{part} ({part / whole:.0%})" if whole else "–"


def shares(rows: Mapping[str, Shares]) -> list[tuple[str, str, str, str, str]]:
    """A table of shares: name, moves, confirmed, refuted, undecidable."""
    return [
        (
            name,
            str(row.total),
            share(row.confirmed, row.total),
            share(row.refuted, row.total),
            share(row.undecidable, row.total),
        )
        for name, row in rows.items()
    ]


def answer(all_moves: Shares) -> str:
    """The shares of all moves, in a sentence.

    Example:
        >>> print(answer(Shares(3, 1, 8)))
        Of 12 moves the losses that followed confirm 3, refute 1, and leave 8 undecided.
    """
    if not all_moves.total:
        return "It was not changed for the loss."
    if all_moves.total == 1:
        (verdict,) = (name for name, number in zip(("confirm", "refute", "do not decide"), all_moves) if number)
        return f"It was changed once, which the losses that followed {verdict}."
    confirmed, refuted, undecided = (f"{number:,}" for number in all_moves)
    return (
        f"Of {all_moves.total:,} moves the losses that followed confirm {confirmed}, refute {refuted}, and leave "
        f"{undecided} undecided."
    )


def pooled(one: Pooled) -> str:
    """Verdict on many moves together, in a sentence.

    Example:
        >>> from greedylr.pulse.diagnosis.pooled import Pooled
        >>> print(pooled(Pooled("raises", None, 40, -0.02, 0.005, 0.001, 0.1, 900)))
        40 raises together: the loss then fell 20 % faster than it would have [10, 30].
        >>> print(pooled(Pooled("cuts", "first third", 9, 0.01, 0.01, 0.3, 0.1, 900)))
        9 cuts of the first third together: that the loss then fell 10 % slower than it would have [-10, 30] may be
        chance; a single one needs about 900 steps to be judged.
    """
    which = f"{one.moves} {one.kind}{f' of the {one.phase}' if one.phase else ''} together: "
    share = one.faster
    if share is None:
        ends = sorted(abs(end) if one.decided else end for end in one.interval)
        way = "lower" if one.effect < 0 else "higher"
        found = f"the loss then came out {number(abs(one.effect))} {way} than it would have"
        ends_said = f"[{number(ends[0])}, {number(ends[1])}]"
    else:
        sign = 1 if share[0] >= 0 else -1
        ends = sorted(100 * sign * end for end in share[1:])
        way = "faster" if sign > 0 else "slower"
        found = f"the loss then fell {100 * abs(share[0]):.0f} % {way} than it would have"
        ends_said = f"[{ends[0]:.0f}, {ends[1]:.0f}]"
    if one.decided:
        return f"{which}{found} {ends_said}."
    needs = f"; a single one needs about {one.steps:,} steps to be judged" if one.steps else ""
    return f"{which}that {found} {ends_said} may be chance{needs}."


def together(reading: Reading) -> list[str]:
    """Verdicts on a run's moves together: on all of a kind, and on a part of them where it is decided."""
    return [pooled(one) for one in reading.pooled if one.phase is None or one.decided]


def source(one: Source) -> str:
    """Origin of the spikes, in a sentence."""
    come = "comes" if one.spikes == 1 else "come"
    where = f"{one.column} {one.value!r}, which has {one.share:.0%} of the steps (p = {one.p_value:.2g})"
    return f"{one.spikes} of {count(one.of, 'spike')} {come} from {where}."


_RISING = ("warming up", "climbing")


def course(trace: Trace) -> list[tuple[str, str]]:
    """Phases in which no single loss set the learning rate: the name of each, and its effect.

    Example:
        >>> import tempfile, torch
        >>> from greedylr import DefaultConfig, GreedyLR
        >>> from greedylr.pulse import Recorder
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        >>> config = DefaultConfig(start_scale=0.1)
        >>> scheduler = GreedyLR(optimizer, decade_steps=10, total_steps=50, anneal=0.4, config=config)
        >>> with Recorder(tempfile.mkdtemp(), scheduler) as recorder:
        ...     for step in range(50):
        ...         scheduler.step(3.0 - step / 100 if step < 20 else 9.0)
        >>> for name, what in course(Trace.load(recorder.path)):
        ...     print(name, what)
        learning rate 0.01 → 1e-06, at most 1
        climbing to 1, steps 1–22
        annealing from 0.125, steps 30–50
    """
    if not len(trace.lrs):
        return []
    lrs = trace.lrs[:, 0]
    first = float(trace.first_lrs[0])
    lines = [
        ("learning rate", f"{lrs[0] if math.isnan(first) else first:.3g} → {lrs[-1]:.3g}, at most {lrs.max():.3g}")
    ]
    for phase in trace.phases:
        first, last = np.searchsorted(trace.steps, [phase.first, phase.last + 1])
        during = lrs[first : max(last, first + 1)]
        if len(during):
            # What ended a climb is its last step.
            edge = f"to {during.max():.3g}" if phase.name in _RISING else f"from {during[0]:.3g}"
            lines.append((phase.name, f"{edge}, steps {steps(phase.first, phase.last)}"))
    return lines


def steps(first: int, last: int) -> str:
    """A span of steps."""
    return f"{first}" if first == last else f"{first}–{last}"


def duration(seconds: float) -> str:
    """A time in the units that one says it in.

    Example:
        >>> duration(4.2), duration(200), duration(7300)
        ('4.2 s', '3 min 20 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60} min"
