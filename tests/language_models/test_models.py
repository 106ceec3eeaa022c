"""Models by name, checked without their weights; and what is said where there is none."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model

from greedylr.language_models.models import PRESETS, ModelError, identity, load, new
from greedylr.language_models.models.tokenizer import trained

# As the models' own pages and papers state them.
PARAMETERS = {
    "llama-3.2-1b": 1_235_814_400,
    "phi-2": 2_779_683_840,
    "falcon-7b": 6_921_720_704,
    "gemma-7b": 8_537_680_896,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_published_model_has_the_size_that_is_stated(name):
    size = PRESETS[name].size()
    assert size.parameters == PARAMETERS[name]
    assert size.targets
    assert 0 < size.adapters < size.parameters / 100
    # 16 bytes a weight that is trained, 2 for one that is not.
    assert size.full == 16 * size.parameters
    assert size.low_rank == 2 * size.parameters + 16 * size.adapters


def test_small_models_are_as_small_as_they_are_called():
    assert 0.8e6 < PRESETS["llama-1m"].size().parameters < 1.2e6
    assert 2.5e6 < PRESETS["llama-3m"].size().parameters < 3.5e6


def test_a_folder_is_loaded_and_known_by_what_is_in_it(small, tmp_path):
    model, tokenizer = load(small)
    assert model.num_parameters() < 20_000
    assert tokenizer.decode(tokenizer("the loss falls")["input_ids"]) == "the loss falls"
    assert identity(small) == identity(small)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert identity(str(tmp_path)) != identity(small)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # Of peft's, at transformers.
def test_adapters_are_put_into_the_weights_which_can_all_be_trained(small, tmp_path):
    model, tokenizer = load(small)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    adapted.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, _ = load(str(tmp_path))
    assert type(loaded) is type(load(small).model)
    assert all(weight.requires_grad for weight in loaded.parameters())
    tokens = torch.arange(10)[None]
    with torch.no_grad():
        wanted, base = adapted.eval()(tokens).logits, load(small).model.eval()(tokens).logits
        torch.testing.assert_close(loaded.eval()(tokens).logits, wanted)
        assert not torch.allclose(wanted, base, atol=1e-2)


def test_new_weights_follow_from_the_seed(configuration):
    first, again, other = (_first_weight(configuration, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def _first_weight(configuration, seed):
    torch.manual_seed(seed)
    return next(new(configuration).parameters())


def test_no_model_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match=r"the model nobody/nothing cannot be loaded: .*no network. Give the folder"):
        load("nobody/nothing")
    with pytest.raises(ModelError, match=r"there is no causal language model in that folder"):
        load(str(tmp_path))
    with pytest.raises(
        ModelError, match=r"llama-3m has no weights yet: greedylr lm pretrain llama-3m TEXT --keep-models makes some"
    ):
        load("llama-3m")


def test_no_configuration(tmp_path):
    with pytest.raises(ModelError, match=r"no configuration nowhere.json: .*one of llama-1m, .*gemma-7b"):
        new("nowhere.json")
    file = tmp_path / "config.json"
    for wrong in ("[]", "{}", "{", json.dumps({"model_type": "no such"})):
        file.write_text(wrong)
        with pytest.raises(ModelError, match="no configuration"):
            new(str(file))


def test_a_tokenizer_reads_and_writes_any_text():
    tokenizer = trained(["def f(x):\n    return x\n"] * 10, 300)
    for text in ("def f(x):\n    return x\n", "naïve – 数 🙂", " "):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) <= 300
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
