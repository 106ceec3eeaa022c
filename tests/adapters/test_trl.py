"""TRL's trainers, for real, on a tiny model and source text: no download."""

import math
import warnings

import pytest
import torch

pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

from tokenizers import Regex, Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast  # noqa: E402
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer  # noqa: E402

from greedylr import Action, DefaultConfig, GreedyLR  # noqa: E402
from greedylr.adapters.trl import attach  # noqa: E402

BRISK = {"build": GreedyLR.paper, "patience": 0, "min_lr": 1e-6, "eps": 0.0}  # a move at nearly every step


@pytest.fixture
def tokenizer():
    characters = [chr(code) for code in range(32, 127)] + ["\n", "<pad>", "<end>"]
    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate(characters)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", padding_side="left"
    )


@pytest.fixture
def model():
    torch.manual_seed(0)
    size = {"n_positions": 64, "n_embd": 16, "n_layer": 1, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(vocab_size=98, bos_token_id=97, eos_token_id=97, pad_token_id=96, **size))


@pytest.fixture
def lines(text):
    source = "".join(map(chr, text.tolist()))
    return [line for line in source.splitlines() if 16 < len(line) < 60]


def train(trainer, **keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train(**keywords)
    return trainer


def arguments(kind, tmp_path, **settings):
    common = {
        "output_dir": str(tmp_path / "out"),
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "learning_rate": 3e-3,
        "max_steps": 24,
        "logging_steps": 5,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind(**{**common, **settings})


def test_sft_on_the_loss(model, tokenizer, lines, tmp_path, replay):
    micro, seen = [], []

    class Watched(SFTTrainer):
        def training_step(self, *args, **kwargs):
            loss = super().training_step(*args, **kwargs)
            micro.append(loss.detach())
            return loss

    settings = arguments(SFTConfig, tmp_path, gradient_accumulation_steps=2, per_device_train_batch_size=4)
    trainer = Watched(
        model, settings, train_dataset=datasets.Dataset.from_dict({"text": lines[:100]}), processing_class=tokenizer
    )
    # Without the gradient, which a replay of the losses does not know.
    attach(trainer, observers=[seen.append], config=DefaultConfig(polyak=math.inf, catch_up_steps=0))
    train(trainer)
    losses = [decision.loss for decision in seen]
    # An epoch of 25 micro-batches ends with one that stands alone.
    pairs = [pair for epoch in (micro[:25], micro[25:]) for pair in zip(epoch[::2], [*epoch[1::2], 0.0])]
    assert losses == [float(one + other) for one, other in pairs[:24]]
    assert [d.lr_after for d in seen] == replay(trainer.lr_scheduler.config, losses, [3e-3, 3e-3])[1:]
    assert trainer.lr_scheduler.config.total_steps == 24
    assert losses[-1] < losses[0]


def vowels(completions, **kwargs):
    return [sum(character in "aeiou" for character in completion) / 8 for completion in completions]


def grpo(model, tokenizer, lines, tmp_path, reward=vowels, **settings):
    settings = {"per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 8, **settings}
    settings = arguments(GRPOConfig, tmp_path, **settings)
    prompts = datasets.Dataset.from_dict({"prompt": [line[:8] for line in lines[:40]]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return GRPOTrainer(model, reward, args=settings, train_dataset=prompts, processing_class=tokenizer)


def test_grpo_on_the_reward(model, tokenizer, lines, tmp_path, replay):
    given, seen = [], []

    def reward(completions, **kwargs):
        given.append(vowels(completions))
        return given[-1]

    trainer = grpo(model, tokenizer, lines, tmp_path, reward, max_steps=16)
    attach(trainer, observers=[seen.append], **BRISK)
    train(trainer)
    rewards = [decision.loss for decision in seen]
    assert rewards == pytest.approx([sum(batch) / len(batch) for batch in given], rel=1e-6)
    config = trainer.lr_scheduler.config
    assert (len(rewards), config.mode) == (16, "max")
    assert [d.lr_after for d in seen] == replay(config, rewards, [3e-3, 3e-3])[1:]
    assert len({d.lr_after for d in seen}) > 2


def test_a_generation_used_for_several_steps_is_one_observation(model, tokenizer, lines, tmp_path):
    calls, seen = [], []

    def reward(completions, **kwargs):
        calls.append(len(completions))
        return [None] * len(completions) if len(calls) == 2 else vowels(completions)

    trainer = grpo(model, tokenizer, lines, tmp_path, reward, max_steps=12, num_iterations=3, logging_steps=1)
    attach(trainer, observers=[seen.append])
    train(trainer)
    # Four generations, the second without a reward.
    assert (len(calls), [decision.step for decision in seen]) == (4, [1, 2, 3])
    assert trainer.lr_scheduler.config.total_steps == 4
    assert Action.NON_FINITE not in {decision.action for decision in seen}


def test_grpo_resumed_equals_uninterrupted(model, tokenizer, lines, tmp_path):
    import copy

    whole, resumed = [], []
    other_model = copy.deepcopy(model)
    settings = {"max_steps": 10, "save_strategy": "steps", "save_steps": 7}
    one = grpo(model, tokenizer, lines, tmp_path, **settings)
    attach(one, observers=[whole.append], **BRISK)
    train(one)
    other = grpo(other_model, tokenizer, lines, tmp_path, **settings)
    attach(other, observers=[resumed.append], **BRISK)
    train(other, resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-7"))
    assert resumed == whole[7:]
    assert resumed[0].step == 8


def test_what_is_pre_trained_keeps_its_learning_rate_on_the_reward_too(model, tokenizer, lines, tmp_path, monkeypatch):
    monkeypatch.setattr("greedylr.adapters.trainer.is_pretrained", lambda model: True)
    # An eval_loss is no reward.
    monkeypatch.setattr("greedylr.adapters.trainer._evaluates", lambda trainer: True)
    trainer = grpo(model, tokenizer, lines, tmp_path, max_steps=2)
    attach(trainer)
    train(trainer)
    config = trainer.lr_scheduler.config
    assert (config.max_scale, config.await_validation) == (1, False)
