"""Trainings: paired, exact after an interrupt, and refused before they start where something is wrong."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings

import pytest
import torch

from greedylr import GreedyLR
from greedylr.lab import compare
from greedylr.lab.comparison import TrialError
from greedylr.lab.comparison.chosen import choose
from greedylr.lab.comparison.on_a_function import run_trials
from greedylr.language_models.data import DataError
from greedylr.language_models.recipes import GRPO, FineTuning, Pretraining
from greedylr.pulse import Trace

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]


@pytest.fixture
def recipe(small, rows):
    return FineTuning(small, rows, steps=20, batch=4)


def curves(compared):
    return [(r.run, r.losses, r.lrs, r.validation_steps, r.validation_losses, r.metric) for r in compared.results]


def test_fine_tuning_is_paired_and_learns(recipe, monkeypatch):
    import trl

    seen = []
    step = trl.SFTTrainer.training_step

    def watched(self, model, inputs, *args, **kwargs):
        if self.state.global_step == 0:
            seen.append(("weights", float(sum(weight.detach().abs().sum() for weight in model.parameters()))))
        seen.append(inputs["input_ids"].tolist())
        return step(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(trl.SFTTrainer, "training_step", watched)
    compared = compare(recipe, ("greedylr", "cosine"), lrs=[0.03], seeds=2)
    assert len(seen) == 4 * 21
    first, second, third, fourth = (seen[21 * run : 21 * (run + 1)] for run in range(4))
    assert first == second  # The same weights and batches under both schedulers,
    assert third == fourth
    assert first[1:] != third[1:]  # and others from another seed.
    for result in compared.results:
        assert result.validation_steps == list(range(0, 21, 2))
        assert result.final_loss < result.validation_losses[0]
        assert (len(result.losses), len(result.lrs)) == (20, 20)
        assert result.run.optimizer == "adamw"
        assert 0 <= result.metric <= 1
    one, other = compared.results[:2]
    assert one.losses[0] == other.losses[0]
    assert one.losses[-1] != other.losses[-1]
    assert compared.fixed == ("cosine",)


def test_sets_in_turns_are_not_shuffled_and_seeds_begin_elsewhere(small, rows, monkeypatch):
    import trl

    from greedylr.language_models.recipes import fine_tuning

    monkeypatch.setattr(fine_tuning, "BLOCK", 8)
    first = []
    step = trl.SFTTrainer.training_step

    def watched(self, model, inputs, *args, **kwargs):
        if self.state.global_step == 0:
            first.append(self.processing_class.decode(inputs["input_ids"][0]))
        return step(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(trl.SFTTrainer, "training_step", watched)
    recipe = FineTuning(small, rows, steps=10, batch=4, in_turns=True)
    compare(recipe, ("constant",), lrs=[0.01], seeds=2)
    train = recipe._examples.train
    for seen, row in zip(first, (train[0], train[8]), strict=True):
        assert seen.startswith(row["prompt"] + row["completion"])


def test_adapters_alone_are_trained(small, rows, monkeypatch):
    import trl

    trainable = []
    train = trl.SFTTrainer.train

    def watched(self, *args, **kwargs):
        trainable.append([name for name, weight in self.model.named_parameters() if weight.requires_grad])
        return train(self, *args, **kwargs)

    monkeypatch.setattr(trl.SFTTrainer, "train", watched)
    compared = compare(FineTuning(small, rows, lora=True, steps=20, batch=4), ("greedylr",), lrs=[0.1], seeds=1)
    assert trainable[0]
    assert all("lora_" in name for name in trainable[0])
    assert compared.results[0].final_loss < compared.results[0].validation_losses[0]


def test_what_is_pre_trained_hears_the_validation_loss_and_is_not_driven_above_its_learning_rate_otherwise(recipe):
    (result,) = compare(recipe, ("greedylr",), lrs=[1e-4], seeds=1).results
    # An evaluation before the first and after every second step: it doubles from one to the next, at most.
    assert max(result.lrs[:3]) <= 1e-4 < max(result.lrs)
    assert all(lr <= 1e-4 * 2 ** ((step - 1) // 2) * (1 + 1e-9) for step, lr in enumerate(result.lrs[1:], start=1))
    (result,) = compare(recipe, ("greedylr:max_scale=1",), lrs=[1e-4], seeds=1).results
    assert max(result.lrs) <= 1e-4
    (result,) = compare(recipe, ("greedylr:catch_up_steps=5,max_scale=10",), lrs=[1e-4], seeds=1).results
    assert max(result.lrs) > 1e-4  # if asked for


@pytest.mark.slow
def test_every_scheduler_of_the_loss_is_told_the_loss_that_was_optimised(recipe):
    published = ("paper:patience=0,smooth=False", "transformers-greedylr:patience=0")
    names = ("greedylr", *published, "transformers-greedylr-forgetful", "plateau", "adalrs", "wsd")
    compared = compare(recipe, names, lrs=[0.03], seeds=1)
    by_name = {result.run.scheduler: result for result in compared.results}
    assert set(compared.fixed) == {"wsd"}
    # The published rule and transformers' own decide alike on the same losses.
    one, other = (by_name[name] for name in published)
    assert one.lrs == pytest.approx(other.lrs)
    assert len({round(lr, 9) for lr in one.lrs}) > 3
    replayed = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.03)
    scheduler = GreedyLR.paper(replayed, patience=0, min_lr=0.03 / 1000, max_lr=30.0)
    lrs = []
    for loss in one.losses:
        lrs.append(replayed.param_groups[0]["lr"])
        replayed.step()
        scheduler.step(loss)
    assert one.lrs == lrs


def test_on_rewards_the_schedulers_are_told_the_reward(small, rows, monkeypatch):
    import trl

    from greedylr.language_models.recipes import grpo

    given = []

    def counted(completions, right, **others):
        rewards = [float(completion.count(" ")) / 10 for completion in completions]
        given.append(sum(rewards) / len(rewards))
        return rewards

    monkeypatch.setattr(grpo, "likeness", counted)
    monkeypatch.setattr(grpo, "GRPOTrainer", trl.GRPOTrainer)
    recipe = GRPO(small, rows, steps=12, answers=4, tokens=4)
    names = ("greedylr", "paper:patience=0,smooth=False", "constant")
    compared = compare(recipe, names, lrs=[0.01], seeds=1)
    ours, published, constant = compared.results
    assert ours.losses[0] == published.losses[0] == constant.losses[0]
    assert all(any(reward == pytest.approx(one, abs=1e-6) for one in given) for reward in ours.losses)
    assert [lr for lr in constant.lrs if lr != 0.01] == []
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    replayed = GreedyLR.paper(optimizer, patience=0, mode="max", min_lr=0.01 / 1000, max_lr=10.0)
    lrs = []
    for reward in published.losses:  # It goes up when the reward does.
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        replayed.step(reward)
    assert published.lrs == lrs
    assert all(0 <= loss <= 1 for loss in ours.validation_losses)


def test_the_reward_of_an_answer_is_its_likeness_to_the_right_one():
    from greedylr.language_models.recipes.grpo import likeness

    assert likeness([" yes\nand more", "no", ""], ["yes", "yes", "yes"]) == [1.0, 0.0, 0.0]


def test_pretraining_from_new_weights(configuration, text):
    recipe = Pretraining(configuration, text, steps=40, batch=4, accumulate=2, length=16)
    compared = compare(recipe, ("greedylr", "linear"), lrs=[0.03], seeds=1)
    one, other = compared.results
    assert one.losses[0] == other.losses[0]
    assert one.validation_losses[0] == pytest.approx(math.log(320), rel=0.02)  # It knows nothing.
    assert one.final_loss < 0.9 * one.validation_losses[0]
    assert len(one.losses) == 40


def test_what_is_kept_is_not_trained_again(recipe, tmp_path):
    calls = []

    def counted(trial):
        calls.append(trial.scheduler)
        recipe(trial)

    options = {"lrs": [0.03], "seeds": 1, "store": tmp_path / "runs.sqlite", "settings": recipe.settings()}
    first = compare(counted, ("greedylr", "cosine"), **options)
    assert calls == ["greedylr", "cosine"]
    again = compare(counted, ("greedylr", "cosine", "linear"), **options)
    assert calls == ["greedylr", "cosine", "linear"]
    assert curves(again)[:2] == curves(first)
    compare(counted, ("cosine",), **{**options, "settings": recipe.settings() | {"steps": 21}})
    assert calls[3:] == ["cosine"]
    traces = [Trace.load(folder) for folder in sorted((tmp_path / "runs").iterdir())]
    assert [trace.losses.tolist() for trace in traces[-1:]] == [again.results[2].losses]
    assert not list((tmp_path / "runs").glob("*/checkpoint-*"))


@pytest.mark.slow
def test_several_processes_make_the_same(recipe, tmp_path):
    chosen = choose(("greedylr", "cosine"))
    alone = run_trials(recipe, chosen, [0.03], [0], settings=recipe.settings())
    done = []
    shared = run_trials(
        recipe, chosen, [0.03], [0], settings=recipe.settings(), jobs=2, done=lambda result, before: done.append(before)
    )
    assert curves(shared) == curves(alone)
    assert done == [False, False]


SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from pathlib import Path
from greedylr.lab.comparison.chosen import choose
from greedylr.lab.comparison.on_a_function import run_trials
from greedylr.language_models.recipes import FineTuning
recipe = FineTuning(sys.argv[1], sys.argv[2], steps=200, batch=4)
run_trials(recipe, choose(sys.argv[4].split("+")), [0.03], [0], store=Path(sys.argv[3]), settings=recipe.settings())
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no kill -9")
def test_killed_amid_a_training_it_goes_on_from_the_checkpoint_and_ends_the_same(small, rows, tmp_path):
    names = "greedylr+paper+cosine"
    command = [sys.executable, "-c", SCRIPT, small, rows, str(tmp_path / "killed.sqlite"), names]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = tmp_path / "killed"
    deadline = time.monotonic() + 120
    killed_at = None
    # In the middle of the second training, whose results would be lost without a checkpoint.
    while time.monotonic() < deadline and process.poll() is None:
        marks = list(folder.glob("paper-*/checkpoint-*/trial.json"))
        if marks:
            process.send_signal(signal.SIGKILL)
            killed_at = marks
            break
        time.sleep(0.002)
    process.wait()
    assert killed_at
    left = [json.loads(file.read_text()) for file in folder.glob("*/checkpoint-*/trial.json")]
    assert left
    assert all(0 < len(one["losses"]) < 200 for one in left)
    recipe = FineTuning(small, rows, steps=200, batch=4)
    options = {"lrs": [0.03], "seeds": 1, "settings": recipe.settings()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = compare(recipe, names.split("+"), **options)
        resumed = compare(recipe, names.split("+"), store=tmp_path / "killed.sqlite", **options)
    assert curves(resumed) == curves(whole)
    assert [r.decisions for r in resumed.results] == [r.decisions for r in whole.results]


def test_what_is_wrong_is_said_before_anything_is_trained(small, rows, text, configuration, tmp_path):
    with pytest.raises(DataError, match=r"too long: the longest has \d+ tokens, and --length allows 4"):
        FineTuning(small, rows, length=4).check()
    long = tmp_path / "long.jsonl"
    long.write_text("\n".join(json.dumps({"text": f"{number} the loss falls" * 40}) for number in range(40)))
    with pytest.raises(DataError, match=r"40 of 40 examples .* are too long: .* takes at most 64"):
        FineTuning(small, str(long)).check()
    with pytest.raises(DataError, match=r"windows of 128 tokens are too long: .* takes at most 64"):
        Pretraining(configuration, text).check()
    short = tmp_path / "short.txt"
    short.write_text("\n\n".join(f"{number} " + "word " * 100 for number in range(25)))
    with pytest.raises(DataError, match=r"\d+ windows of 60 tokens to train on and \d+ to validate on; 500 and one"):
        Pretraining(configuration, str(short), length=60, batch=500).check()


def test_a_trainer_that_was_made_otherwise_is_refused(small, rows):
    import datasets
    import trl

    from greedylr.language_models.models import load

    def made(evaluated=True, **settings):
        def train(trial):
            model, tokenizer = load(small)
            data = datasets.Dataset.from_list([{"text": "the loss falls"}] * 8)
            known = {"learning_rate": trial.lr, "seed": trial.seed} | settings
            arguments = trl.SFTConfig(
                str(trial.folder), max_steps=2, report_to="none", use_cpu=True, bf16=False, **known
            )
            trainer = trl.SFTTrainer(
                model,
                arguments,
                train_dataset=data,
                eval_dataset=data if evaluated else None,
                processing_class=tokenizer,
            )
            trial.train(trainer)

        return train

    options = {"lrs": [0.1], "seeds": [3]}
    with pytest.raises(TrialError, match=r"learning_rate is 0.2; give it trial.lr, 0.1"):
        compare(made(learning_rate=0.2), ("cosine",), **options)
    with pytest.raises(TrialError, match=r"seed is 42; give it trial.seed, 3"):
        compare(made(seed=42), ("cosine",), **options)
    with pytest.raises(TrialError, match=r"no eval_dataset: schedulers are judged by the loss on one"):
        compare(made(evaluated=False), ("cosine",), **options)
    with pytest.raises(TrialError, match=r"takes a transformers.Trainer, got object"):
        compare(lambda trial: trial.train(object()), ("cosine",), **options)
    # Without an evaluation strategy it is validated at the end.
    (result,) = compare(made(), ("cosine",), **options).results
    assert result.validation_steps == [0, 2]


def test_a_training_that_has_met_nan_is_given_up_and_has_failed(recipe):
    (result,) = compare(recipe, {"none": lambda optimizer, steps: Hopeless(optimizer)}, lrs=[0.03], seeds=1).results
    assert len(result.losses) < 20
    assert result.failure == "gave up after a loss of nan"
    assert result.diverged


class Hopeless:
    """Sets a learning rate that nothing survives."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def step(self):
        self.optimizer.param_groups[0]["lr"] = 1e30
