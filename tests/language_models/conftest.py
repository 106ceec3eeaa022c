"""A language model so small that a training takes seconds, on text that comes with Python."""

import json
import random

import pytest

pytest.importorskip("trl")
pytest.importorskip("peft")

CONFIGURATION = {
    "model_type": "llama",
    "vocab_size": 320,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="session")
def configuration(tmp_path_factory):
    file = tmp_path_factory.mktemp("configuration") / "small.json"
    file.write_text(json.dumps(CONFIGURATION))
    return str(file)


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    drawn = random.Random(0)
    words = ["the", "rate", "falls", "rises", "loss", "step", "and", "again", "then", "rests"]
    documents = [" ".join(drawn.choice(words) for _ in range(200)) for _ in range(30)]
    file = tmp_path_factory.mktemp("text") / "words.txt"
    file.write_text("\n\n".join(documents))
    return str(file)


@pytest.fixture(scope="session")
def small(tmp_path_factory, configuration, text):
    """Folder of a model that was made from new weights, with its tokenizer."""
    import torch

    from greedylr.language_models.recipes import Pretraining

    folder = tmp_path_factory.mktemp("small")
    recipe = Pretraining(configuration, text, length=16)
    torch.manual_seed(0)
    trainer = recipe.trainer(str(folder / "elsewhere"), 0.01, 0)
    trainer.save_model(str(folder))
    return str(folder)


@pytest.fixture(scope="session")
def rows(tmp_path_factory):
    """A file of prompts and completions."""
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    pairs = [(f"{a} and {b} is", f" {a + b}") for a in range(8) for b in range(8)]
    file.write_text("\n".join(json.dumps({"prompt": one, "completion": other}) for one, other in pairs))
    return str(file)
