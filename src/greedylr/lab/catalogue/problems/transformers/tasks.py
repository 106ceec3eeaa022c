"""Tasks of Transformers' models: their own loss, and the measure of success that is usual for it.

A model is called by the names of its arguments; where a batch needs several, they are made of the two tensors that an
example has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from greedylr.lab.catalogue.problems.task import Examples, Task
from greedylr.lab.catalogue.problems.transformers.tokens import IGNORED, PADDING


def _call(model: Any, examples: Examples, **labels: Tensor) -> Any:
    if examples.inputs.is_floating_point():
        return model(pixel_values=examples.inputs, **labels)
    return model(input_ids=examples.inputs, attention_mask=_mask(examples), **labels)


def _mask(examples: Examples) -> Tensor:
    return examples.inputs.ne(PADDING).long()


def _loss(model: Any, examples: Examples) -> Tensor:
    loss: Tensor = _call(model, examples, labels=examples.targets).loss
    return loss


def _accuracy(model: Any, examples: Examples) -> Tensor:
    chosen: Tensor = _call(model, examples).logits.argmax(-1)
    return (chosen == examples.targets).float().mean()


def _next_accuracy(model: Any, examples: Examples) -> Tensor:
    chosen: Tensor = _call(model, examples).logits[:, :-1].argmax(-1)
    return (chosen == examples.targets[:, 1:]).float().mean()


def _span_loss(model: Any, examples: Examples) -> Tensor:
    start, end = examples.targets.unbind(1)
    loss: Tensor = _call(model, examples, start_positions=start, end_positions=end).loss
    return loss


def _exact_spans(model: Any, examples: Examples) -> Tensor:
    made = _call(model, examples)
    chosen = torch.stack([made.start_logits.argmax(-1), made.end_logits.argmax(-1)], 1)
    return (chosen == examples.targets).all(1).float().mean()


CLASSIFICATION = Task("cross-entropy (nats)", _loss, "accuracy", _accuracy)
"""A class for each input: ``targets`` is (examples,)."""

LANGUAGE_MODELLING = Task("cross-entropy (nats)", _loss, "accuracy", _next_accuracy)
"""Each next number of a text: ``targets`` are the ``inputs``, which the model moves by one."""

QUESTION_ANSWERING = Task("cross-entropy (nats)", _span_loss, "exact match", _exact_spans)
"""Span of an answer: ``targets`` is (examples, 2), its first and its last number."""


def token_classification(kinds: Sequence[str]) -> Task:
    """A kind for each number of a text, where parts of it are to be marked: ``targets`` is (examples, length).

    Args:
        kinds: Name of each kind, as seqeval reads them: ``"O"`` for none, ``"B-…"`` where a part begins, ``"I-…"``
            inside one.
    """

    def score(model: Any, examples: Examples) -> Tensor:
        from seqeval.metrics import f1_score  # type: ignore[import-untyped]

        chosen = _call(model, examples).logits.argmax(-1)
        asked = [row != IGNORED for row in examples.targets]
        right, found = (
            [[kinds[number] for number in row[where].tolist()] for row, where in zip(rows, asked)]
            for rows in (examples.targets, chosen)
        )
        return torch.tensor(float(f1_score(right, found, zero_division=0)))

    return Task("cross-entropy (nats)", _loss, "F1", score)


def generation(read: Callable[[Tensor], list[str]], most: int = 64) -> Task:
    """A text for each input: ``targets`` is (examples, length). The metric is chrF of what the model writes greedily.

    Args:
        read: From rows of numbers to texts.
        most: How many of the examples it writes for.
    """

    def score(model: Any, examples: Examples) -> Tensor:
        from sacrebleu.metrics.chrf import CHRF

        few = Examples(examples.inputs[:most], examples.targets[:most])
        length = few.targets.shape[1]
        written = model.generate(
            input_ids=few.inputs, attention_mask=_mask(few), max_new_tokens=length, num_beams=1, do_sample=False
        )
        right = read(few.targets.clamp(min=PADDING))
        return torch.tensor(CHRF().corpus_score(read(written), [right]).score / 100)

    return Task("cross-entropy (nats)", _loss, "chrF", score)
