"""Transformers' Trainer, for real, on a tiny language model and source text."""

import json
import math
import warnings

import pytest
import torch

from greedylr import Action, DefaultConfig, GreedyLR

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments  # noqa: E402

from greedylr.adapters.trainer import attach, is_pretrained  # noqa: E402
from greedylr.pulse import Recorder, Trace  # noqa: E402
from greedylr.pulse.sinks import Observing  # noqa: E402
from greedylr.torch.rescue import Rescue  # noqa: E402

# Theirs, not ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

LOSS_ONLY = {
    "config": DefaultConfig(polyak=math.inf, catch_up_steps=0)
}  # without the gradient, which a replay of losses does not know
BRISK = {"build": GreedyLR.paper, "patience": 0, "min_lr": 1e-6, "eps": 0.0}  # a move at nearly every step


class Watched(Trainer):
    """Notes each micro-batch's loss, before GreedyLR is attached to it."""

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.__dict__.setdefault("micro", []).append(loss.detach().float())
        return loss


class Reads(TrainerCallback):
    """The learning rate in the optimizer before every optimizer step."""

    def __init__(self):
        self.lrs = []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self.lrs.append(tuple(group["lr"] for group in optimizer.param_groups))


@pytest.fixture
def data(text):
    blocks = text[: 16 * 200].reshape(-1, 16)
    return [{"input_ids": block, "labels": block} for block in blocks]


@pytest.fixture
def make(data, tmp_path):
    def made(kind=Watched, name="run", callbacks=(), **arguments):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=128, n_positions=16, n_embd=16, n_layer=1, n_head=2))
        defaults = {
            "output_dir": str(tmp_path / name),
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "max_steps": 40,
            "learning_rate": 3e-3,
            "logging_steps": 7,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "disable_tqdm": True,
            "seed": 3,
        }
        arguments = TrainingArguments(**{**defaults, **arguments})
        return kind(model, arguments, train_dataset=data, eval_dataset=data[:20], callbacks=list(callbacks))

    return made


def train(trainer, **keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        trainer.train(**keywords)
    return trainer


def by_step(micro, accumulation):
    groups = [micro[i : i + accumulation] for i in range(0, len(micro), accumulation)]
    return [float(sum(group[1:], group[0])) for group in groups]


def parameters(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


@pytest.mark.parametrize("rule", [LOSS_ONLY, BRISK], ids=["default", "paper"])
def test_one_line_and_it_sees_the_optimised_loss(make, replay, rule):
    seen, reads = [], Reads()
    trainer = make(callbacks=[reads])
    attach(trainer, observers=[seen.append], **rule)
    train(trainer)
    losses = [decision.loss for decision in seen]
    # 50 micro-batches an epoch: 25 steps of two; no logging or evaluation setting plays a part.
    assert losses == by_step(trainer.micro, 2)
    assert len(losses) == 40
    expected = replay(trainer.lr_scheduler.config, losses, [3e-3, 3e-3])
    assert reads.lrs == expected[:-1]
    assert trainer.lr_scheduler.get_last_lr() == list(expected[-1])
    assert len(set(expected)) > 3


def test_it_is_the_loss_that_the_trainer_logs(make):
    seen = []
    trainer = make(logging_steps=1, gradient_accumulation_steps=3, max_steps=20)
    attach(trainer, observers=[seen.append])
    train(trainer)
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert [decision.loss for decision in seen] == pytest.approx(logged, abs=1e-4)


@pytest.mark.parametrize("precision", [{"bf16": True}, {"max_grad_norm": 0.0}, {"max_grad_norm": 0.1}])
def test_precision_and_clipping(make, replay, precision):
    seen, reads = [], Reads()
    trainer = make(callbacks=[reads], max_steps=12, **precision)
    attach(trainer, observers=[seen.append], **BRISK)
    train(trainer)
    losses = [decision.loss for decision in seen]
    assert losses == by_step(trainer.micro, 2)
    assert reads.lrs == replay(trainer.lr_scheduler.config, losses, [3e-3, 3e-3])[:-1]


@pytest.mark.parametrize("most", [1e-3, 1e9, 0.0])
def test_the_gradient_is_heard_however_it_is_clipped(make, most):
    """The slope is what it would be without clipping."""
    trainer = make(max_grad_norm=most, max_steps=3, learning_rate=1e-6)
    attach(trainer, warmup_steps=0, config=DefaultConfig(catch_up_steps=0))
    train(trainer)
    slope = trainer.lr_scheduler.state_dict()["state"]["slope"]
    # So small a learning rate leaves the weights as they are.
    without = make(max_grad_norm=1e9, max_steps=3, learning_rate=1e-6, name="without")
    attach(without, warmup_steps=0, config=DefaultConfig(catch_up_steps=0))
    train(without)
    assert slope == pytest.approx(without.lr_scheduler.state_dict()["state"]["slope"], rel=1e-2)
    assert slope > 0


def test_a_loss_that_is_nan_is_seen(make):
    class Bad(Trainer):
        def training_step(self, *args, **kwargs):
            loss = super().training_step(*args, **kwargs)
            return loss * math.nan if self.state.global_step == 5 else loss

    seen = []
    trainer = make(Bad, max_steps=8)
    attach(trainer, observers=[seen.append])
    train(trainer)
    assert [decision.step for decision in seen if decision.action is Action.NON_FINITE] == [6]


def test_a_rescue_is_made_by_a_callback(make):
    class Bad(Trainer):
        def training_step(self, *args, **kwargs):
            loss = super().training_step(*args, **kwargs)
            if self.state.global_step == 25:
                next(self.model.parameters()).grad.fill_(math.nan)
                return loss * math.nan
            return loss

    class Rescued(TrainerCallback):
        def on_train_begin(self, args, state, control, model, lr_scheduler, **kwargs):
            scheduler = lr_scheduler.scheduler
            self.rescue = Rescue(model, scheduler.optimizer, scheduler, every=10)

        def on_step_end(self, args, state, control, **kwargs):
            self.rescue.step()

    rescued, seen = Rescued(), []
    trainer = make(Bad, callbacks=[rescued])
    attach(trainer, observers=[seen.append])
    train(trainer)
    assert rescued.rescue.last == 20
    assert [decision.step for decision in seen if not math.isfinite(decision.loss)] == [26]
    assert bool(parameters(trainer).isfinite().all())


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])
def test_a_skipped_step_is_no_observation(make, optim):
    # Accelerate does not notice that a fused optimizer skips.
    class Poison(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            if state.global_step in (0, 4, 5):
                next(model.parameters()).grad.fill_(math.inf)

    seen, reads = [], Reads()
    trainer = make(callbacks=[Poison(), reads], max_steps=12, max_grad_norm=0.0, optim=optim)
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    attach(trainer, observers=[seen.append], **BRISK)
    train(trainer)
    losses = [loss for step, loss in enumerate(by_step(trainer.micro, 2)) if step not in (0, 4, 5)]
    assert trainer.accelerator.scaler.get_scale() == 1.0  # it halved three times
    assert [decision.loss for decision in seen] == losses
    assert len(reads.lrs) == 12
    assert trainer.lr_scheduler.last_epoch == 9


@pytest.mark.parametrize("stop", [7, 19])
def test_resumed_equals_uninterrupted(make, stop):
    # Dropout is on, and step 19 lies in the middle of a window.
    whole, resumed = [], []
    settings = {"save_strategy": "steps", "save_steps": stop, "max_steps": 30}
    one = make(name="whole", **settings)
    attach(one, observers=[whole.append], **BRISK)
    train(one)
    other = make(name="resumed", **settings)
    attach(other, observers=[resumed.append], **BRISK)
    train(other, resume_from_checkpoint=f"{one.args.output_dir}/checkpoint-{stop}")
    assert resumed == whole[stop:]
    assert torch.equal(parameters(one), parameters(other))


@pytest.mark.slow  # Within one process it is not.
def test_resumed_in_a_fresh_process(processes, tmp_path):
    script = """
        import sys, json, inspect, argparse, torch
        from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
        from greedylr import GreedyLR
        from greedylr.adapters.trainer import attach

        torch.manual_seed(0)
        text = torch.tensor([min(ord(c), 127) for c in inspect.getsource(argparse)][: 16 * 100]).reshape(-1, 16)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=128, n_positions=16, n_embd=16, n_layer=1, n_head=2))
        arguments = TrainingArguments(
            output_dir="out", max_steps=20, save_steps=9, report_to="none", use_cpu=True, disable_tqdm=True,
            per_device_train_batch_size=8,
        )
        trainer = Trainer(model, arguments, train_dataset=[{"input_ids": row, "labels": row} for row in text])
        lrs = []
        attach(trainer, GreedyLR.paper, patience=0, min_lr=1e-6, observers=[lambda d: lrs.append(d.lr_after)])
        trainer.train(resume_from_checkpoint=True if sys.argv[1] == "resume" else None)
        print(json.dumps([lrs, sum(p.double().sum().item() for p in model.parameters())]))
    """
    (first,) = processes(script, "start")
    import shutil

    shutil.rmtree(tmp_path / "out" / "checkpoint-20")
    shutil.rmtree(tmp_path / "out" / "checkpoint-18")
    (second,) = processes(script, "resume")
    (whole, checksum), (rest, other) = (json.loads(out.strip().splitlines()[-1]) for out in (first, second))
    assert rest == whole[9:]
    assert other == checksum


def test_on_the_metric_at_evaluations(make, replay):
    seen = []
    trainer = make(
        eval_strategy="steps",
        eval_steps=4,
        eval_on_start=True,
        save_strategy="steps",
        save_steps=4,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        max_steps=24,
        save_total_limit=2,
    )
    attach(trainer, GreedyLR.paper, observe="metric", patience=0, min_lr=1e-5, factor=0.5, observers=[seen.append])
    train(trainer)
    evaluated = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry][1:]
    assert [decision.loss for decision in seen] == evaluated
    assert len(evaluated) == 6
    config = trainer.lr_scheduler.config
    assert config.mode == "min"
    assert [d.lr_after for d in seen] == replay(config, evaluated, [3e-3, 3e-3])[1:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.evaluate()
    assert len(seen) == 6, "an evaluation after training is the user's own"


def test_a_metric_where_greater_is_better(make):
    trainer = make(
        eval_strategy="steps", eval_steps=2, max_steps=4, metric_for_best_model="runtime", greater_is_better=True
    )
    attach(trainer, GreedyLR.paper, observe="metric", min_lr=1e-5)
    train(trainer)
    assert trainer.lr_scheduler.config.mode == "max"
    assert trainer.lr_scheduler.last_epoch == 2


def test_a_function_may_say_what_is_observed(make):
    seen = []
    trainer = make(max_steps=6)
    attach(
        trainer,
        observe=lambda trainer: None if trainer.state.global_step % 2 else float(trainer.state.global_step),
        mode="max",
        observers=[seen.append],
    )
    train(trainer)
    assert [decision.loss for decision in seen] == [0.0, 2.0, 4.0]


@pytest.mark.skipif(not hasattr(transformers.optimization, "GreedyLR"), reason="before there was one")
def test_in_place_of_lr_scheduler_type_greedy_checkpoints_included(make):
    settings = {
        "eval_strategy": "steps",
        "eval_steps": 3,
        "metric_for_best_model": "loss",
        "save_strategy": "steps",
        "save_steps": 12,
        "max_steps": 30,
        "logging_steps": 1,
    }
    rule = {"patience": 0, "min_lr": 1e-5, "factor": 0.7}
    theirs = make(name="theirs", lr_scheduler_type="greedy", lr_scheduler_kwargs=rule, **settings)
    train(theirs)
    ours = make(name="ours", **settings)
    attach(ours, GreedyLR.paper, observe="metric", **rule)
    train(ours)
    resumed = make(name="resumed", **settings)
    attach(resumed, GreedyLR.paper, observe="metric", **rule)
    train(resumed, resume_from_checkpoint=f"{theirs.args.output_dir}/checkpoint-12")

    def lrs(trainer):
        return [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]

    assert lrs(ours) == lrs(theirs)
    assert len(set(lrs(ours))) > 3
    assert lrs(resumed)[-18:] == lrs(theirs)[12:]
    assert torch.equal(parameters(theirs), parameters(resumed))


def test_tensorboard_shows_learning_rate_and_decisions(make, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    seen = []
    trainer = make(report_to="tensorboard", logging_steps=5)
    attach(trainer, observers=[seen.append], **BRISK)
    train(trainer)
    (file,) = (tmp_path / "run").rglob("events.out.*")
    board = events.EventAccumulator(str(file))
    board.Reload()
    lrs = [event.value for event in board.Scalars("train/learning_rate")]
    # The Trainer logs the learning rate that the step was made with; its older versions the one for the next step.
    used = [decision.lr_before[0] for decision in seen[4::5]]
    assert lrs in (pytest.approx(used, rel=1e-6), pytest.approx([d.lr_after[0] for d in seen[4::5]], rel=1e-6))
    raised = [event.value for event in board.Scalars("train/greedylr/raised")]
    assert raised == [sum(d.action is Action.RAISED for d in seen[i : i + 5]) for i in range(0, 40, 5)]
    assert sum(raised) > 0


class Taken(Trainer):
    """Would fail on inputs that the model does not know."""

    def training_step(self, model, inputs, *args, **kwargs):
        assert set(inputs) == {"input_ids", "labels"}
        return super().training_step(model, inputs, *args, **kwargs)


@pytest.fixture
def domains(make, data):
    """A trainer whose micro-batches are of one domain each, and what says so."""

    def made(**arguments):
        trainer = make(kind=Taken, max_steps=20, remove_unused_columns=False, dataloader_drop_last=True, **arguments)
        trainer.train_dataset = [{**row, "domain": torch.tensor(i // 4 % 3)} for i, row in enumerate(data)]
        trainer.get_train_dataloader = lambda: torch.utils.data.DataLoader(trainer.train_dataset, batch_size=4)
        return trainer

    def of(inputs):
        return {"domain": "abc"[int(inputs.pop("domain")[0])], "tokens": inputs["input_ids"].numel()}

    return made, of


def test_a_recorder_gets_everything(domains, tmp_path):
    made, of = domains
    trainer = made()
    with Recorder(tmp_path / "trace") as recorder:
        attach(trainer, observers=[recorder], composition=of)
        train(trainer)
    trace = Trace.load(tmp_path / "trace")
    assert trace.last == 20
    assert (trace.config["family"], trace.config["total_steps"]) == ("DefaultConfig", 20)
    assert trace.composition["domain"][:4].tolist() == ["a + b", "a + c", "b + c", "a + b"]
    assert trace.composition["tokens"].tolist() == [64.0] * 20


def evaluated(trainer, name="eval_loss"):
    return {entry["step"]: entry[name] for entry in trainer.state.log_history if name in entry}


def test_evaluations_while_it_trains_are_recorded(make, tmp_path):
    class Sink(dict):
        def write(self, step, values):
            self.setdefault(step, {}).update(values)

        def close(self):
            pass

    sink, seen = Sink(), []
    settings = {"eval_strategy": "steps", "eval_steps": 4, "eval_on_start": True, "save_strategy": "steps"}
    trainer = make(max_steps=12, save_steps=6, **settings)
    with Recorder(tmp_path / "trace") as recorder:
        attach(trainer, observers=[recorder, Observing(sink), seen.append])
        train(trainer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.evaluate()  # the user's own
    logged = evaluated(trainer)
    assert set(logged) == {0, 4, 8, 12}
    del logged[0]  # before anything was trained
    metrics = Trace.load(tmp_path / "trace").metrics
    assert set(metrics) == {"eval_loss"}, "and nothing of how long it took"
    assert dict(zip(metrics["eval_loss"].steps.tolist(), metrics["eval_loss"].values.tolist())) == {
        **logged,
        12: metrics["eval_loss"].values[-1],
    }
    assert len(metrics["eval_loss"].steps) == 3
    assert [step for step, values in sink.items() if "eval_loss" in values] == [4, 8, 12]

    again = make(max_steps=12, save_steps=6, **settings)
    with Recorder(tmp_path / "trace") as recorder:
        attach(again, observers=[recorder])
        train(again, resume_from_checkpoint=f"{trainer.args.output_dir}/checkpoint-6")
    resumed = Trace.load(tmp_path / "trace")
    assert resumed.resumed == [6]
    assert resumed.metrics["eval_loss"].steps.tolist() == [4, 8, 12]
    assert resumed.metrics["eval_loss"].values.tolist() == metrics["eval_loss"].values.tolist()


@pytest.mark.parametrize("observe", ["loss", "metric"])
def test_each_of_several_evaluation_sets_is_recorded(make, data, tmp_path, observe):
    trainer = make(
        max_steps=6, eval_strategy="steps", eval_steps=3, metric_for_best_model="eval_one_loss", greater_is_better=False
    )
    trainer.eval_dataset = {"one": data[:8], "other": data[8:16]}
    trainer.compute_metrics = lambda _: {"words": "many", "sure": 0.5}
    with Recorder(tmp_path / "trace") as recorder:
        attach(trainer, observers=[recorder], observe=observe)
        train(trainer)
    metrics = Trace.load(tmp_path / "trace").metrics
    assert set(metrics) == {f"eval_{of}_{what}" for of in ("one", "other") for what in ("loss", "sure")}
    for name, metric in metrics.items():
        # On the metric, evaluations are what is counted.
        assert metric.steps.tolist() == ([3, 6] if observe == "loss" else [1, 2])
        assert metric.values.tolist() == list(evaluated(trainer, name).values())


def test_losses_are_compared_with_their_own_domains(domains):
    made, of = domains
    trainer = made(gradient_accumulation_steps=1)
    attach(trainer, composition=of, level_by="domain")
    train(trainer)
    assert sorted(trainer.lr_scheduler.state_dict()["levels"]["names"]) == ["a", "b", "c"]


def test_the_horizon_is_the_trainers(make):
    trainer = make(max_steps=20)
    attach(trainer)
    train(trainer)
    assert trainer.lr_scheduler.config.total_steps == 20
    open_ended = make(max_steps=3)
    attach(open_ended, total_steps=None)
    train(open_ended)
    assert open_ended.lr_scheduler.config.total_steps is None


def test_callbacks_before_and_after_it_see_the_same(make):
    class Ends(TrainerCallback):
        def __init__(self):
            self.lrs = []

        def on_step_end(self, args, state, control, optimizer=None, lr_scheduler=None, **kwargs):
            assert lr_scheduler.get_last_lr()[0] == optimizer.param_groups[0]["lr"]
            self.lrs.append(optimizer.param_groups[0]["lr"])

    class After(Ends):
        pass

    before, after, seen = Ends(), After(), []
    trainer = make(callbacks=[before], max_steps=10)
    attach(trainer, observers=[seen.append], **BRISK)
    trainer.add_callback(after)
    train(trainer)
    assert before.lrs == after.lrs == [decision.lr_after[0] for decision in seen]


def test_train_twice_starts_twice(make):
    seen = []
    trainer = make(max_steps=5)
    attach(trainer, observers=[seen.append])
    train(trainer)
    train(trainer)
    assert [decision.step for decision in seen] == [1, 2, 3, 4, 5] * 2


def test_what_cannot_be_attached(make):
    trainer = make()
    with pytest.raises(ValueError, match="observe must be"):
        attach(trainer, observe="validation")
    with pytest.raises(ValueError, match=r"metric_for_best_model and an eval_strategy .* got None and 'no'"):
        attach(trainer, observe="metric")
    with pytest.raises(ValueError, match="observe='metric' does not look at"):
        attach(trainer, observe="metric", composition=dict)
    attach(trainer)
    with pytest.raises(ValueError, match="only once"):
        attach(trainer)
    trainer = make()
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.1)
    trainer.lr_scheduler = torch.optim.lr_scheduler.ConstantLR(trainer.optimizer)
    with pytest.raises(ValueError, match="was given a scheduler"):
        attach(trainer)


def test_ranks_share_one_learning_rate(processes):
    script = """
        import os, json, inspect, argparse, torch
        from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
        from greedylr import GreedyLR
        from greedylr.adapters.trainer import attach

        torch.set_num_threads(1)
        torch.manual_seed(0)
        text = torch.tensor([min(ord(c), 127) for c in inspect.getsource(argparse)][: 16 * 200]).reshape(-1, 16)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=128, n_positions=16, n_embd=16, n_layer=1, n_head=2))
        own = []

        class Watched(Trainer):
            def training_step(self, *args, **kwargs):
                loss = super().training_step(*args, **kwargs)
                own.append(loss.item())
                return loss

        arguments = TrainingArguments(
            output_dir="out", max_steps=20, save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
            per_device_train_batch_size=4, ddp_backend="gloo", learning_rate=3e-3,
        )
        trainer = Watched(model, arguments, train_dataset=[{"input_ids": row, "labels": row} for row in text])
        seen = []
        attach(trainer, GreedyLR.paper, patience=0, min_lr=1e-6, observers=[seen.append])
        trainer.train()
        print(json.dumps([own, [d.loss for d in seen], [[lr.hex() for lr in d.lr_after] for d in seen]]), flush=True)
        torch.distributed.barrier()
        os._exit(0)
    """
    one, other = (json.loads(out.strip().splitlines()[-1]) for out in processes(script, world=2))
    assert one[0] != other[0]
    assert one[1:] == other[1:]
    assert one[1] == pytest.approx([(a + b) / 2 for a, b in zip(one[0], other[0])], rel=1e-12)
    assert len(set(map(tuple, one[2]))) > 3


@pytest.mark.parametrize(("first", "then"), [(40, 120), (40, 24)])
def test_a_resumed_run_of_another_length_follows_the_trainer(make, tmp_path, first, then):
    attached = make(name="a", max_steps=first, save_strategy="steps", save_steps=20)
    settings = {"warmup_steps": 0, "anneal": 0.4, **LOSS_ONLY}
    attach(attached, **settings)
    train(attached)
    seen, reads = [], Reads()
    resumed = make(name="a", max_steps=then, save_strategy="no", callbacks=[reads])
    attach(resumed, **settings, observers=[seen.append])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-20"))
    said = [str(one.message) for one in told if "counts in place of the saved" in str(one.message)]
    assert len(said) == 1
    assert f"total_steps={then}, as given to this scheduler, counts in place of the saved {first}" in said[0]
    assert [decision.action for decision in seen].count(Action.HORIZON) == 1
    assert resumed.lr_scheduler.config.total_steps == then
    assert reads.lrs[0][0] == pytest.approx(3e-3 * min(1, (then - 20) / (0.4 * then)), rel=0.25)
    assert seen[-1].lr_after[0] < 1e-6


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (("greedy",), {}, "build must be GreedyLR, GreedyLR.paper or a function of the optimizer, got 'greedy'"),
        ((), {"min_lr": 1e-3}, "write min_scale="),
        ((), {"patience": 3}, "GreedyLR.paper"),
        ((GreedyLR.paper,), {"total_steps": 3}, "GreedyLR.paper has no argument 'total_steps'"),
    ],
)
def test_what_cannot_be_built_is_said_at_once(make, arguments, settings, message):
    with pytest.raises(TypeError, match=message):
        attach(make(), *arguments, **settings)


def test_only_trainers_can_be_attached_to(make):
    trainer = make()
    for other in (trainer.model, torch.optim.SGD(trainer.model.parameters(), lr=0.1)):
        with pytest.raises(
            TypeError, match=r"takes a transformers.Trainer, got .*: in a loop of your own use GreedyLR"
        ):
            attach(other)
    scheduler = GreedyLR(torch.optim.SGD(trainer.model.parameters(), lr=0.1))
    with pytest.raises(TypeError, match=r"build must be GreedyLR, GreedyLR.paper or a function"):
        attach(trainer, scheduler)
    with pytest.raises(ValueError, match=r"max_scale must be a number with 1 <= max_scale"):
        attach(trainer, max_scale=0.5)
    attach(trainer, max_scale=[1.0, 2.0])  # for each parameter group


@pytest.mark.parametrize("asked", [{"lr_scheduler_type": "cosine"}, {"warmup_steps": 5}])
def test_a_schedule_that_was_asked_for_is_not_dropped_without_a_word(make, asked):
    with pytest.warns(UserWarning, match=f"in the training arguments: {next(iter(asked))}=.* is not used"):
        attach(make(**asked))


def trained(trainer, **settings):
    """The settings in force after a step."""
    attach(trainer, **settings)
    trainer.args.max_steps = 1
    trainer.train()
    return trainer.lr_scheduler.scheduler.config


@pytest.fixture
def tuning(make, tmp_path):
    """A trainer of a model that comes from a folder."""
    trainer = make()
    trainer.model.save_pretrained(tmp_path / "pre-trained")
    trainer.model = trainer.model_wrapped = GPT2LMHeadModel.from_pretrained(tmp_path / "pre-trained")
    return trainer


def test_a_pre_trained_model_never_gets_more_than_the_learning_rate_that_was_given(tuning):
    attach(tuning)
    reads = Reads()
    tuning.add_callback(reads)
    tuning.train()
    assert tuning.lr_scheduler.scheduler.config.max_scale == 1
    assert max(lr for lrs in reads.lrs for lr in lrs) <= 3e-3


def test_that_can_be_said_otherwise(tuning):
    assert trained(tuning, max_scale=10).max_scale == 10


def test_where_the_trainer_evaluates_a_pre_trained_model_waits_for_the_validation_loss(tuning):
    tuning.args.eval_strategy, tuning.args.eval_steps, tuning.args.max_steps = "steps", 2, 40
    tuning.eval_dataset = tuning.train_dataset
    # So small that a step promises next to nothing: it catches up as far as it may.
    tuning.args.learning_rate = 1e-5
    attach(tuning, warmup_steps=0, anneal=0.0, config=DefaultConfig(catch_up_steps=1, window=1000))
    tuning.train()
    config = tuning.lr_scheduler.scheduler.config
    assert (config.await_validation, config.max_scale) == (True, 1000)
    losses = [log["eval_loss"] for log in tuning.state.log_history if "eval_loss" in log]
    assert len(losses) == 20
    assert losses == sorted(losses, reverse=True)
    state = tuning.lr_scheduler.scheduler.state_dict()["state"]
    assert state["lowest_validation"] == losses[-1]
    # The first, after step 2, is compared with nothing; then it may double, until two fifths of the run are over.
    assert state["scale"] == 2.0**6


@pytest.mark.parametrize(
    "given", [{"max_scale": 3}, {"config": DefaultConfig(max_scale=3)}, {"await_validation": False}]
)
def test_it_does_not_where_something_else_is_said(tuning, given):
    tuning.args.eval_strategy, tuning.args.eval_steps = "steps", 2
    tuning.eval_dataset = tuning.train_dataset
    assert not trained(tuning, **given).await_validation


def test_of_several_evaluation_sets_none_is_heard(tuning):
    tuning.args.eval_strategy, tuning.args.eval_steps = "steps", 2
    tuning.eval_dataset = {"a": tuning.train_dataset, "b": tuning.train_dataset}
    assert trained(tuning).max_scale == 1


def test_evaluations_outside_of_training_and_of_other_rules_are_not_heard(make):
    trainer = make(eval_strategy="steps", eval_steps=2, max_steps=4, eval_on_start=True)
    attach(trainer, build=GreedyLR.paper, min_lr=1e-6)
    trainer.train()
    trainer = make(eval_strategy="steps", eval_steps=2, max_steps=4, eval_on_start=True, name="b")
    attach(trainer, await_validation=True)
    trainer.evaluate()
    trainer.train()
    losses = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
    lowest = trainer.lr_scheduler.scheduler.state_dict()["state"]["lowest_validation"]
    assert lowest == min(losses)
    trainer.lr_scheduler.scheduler.validate(lowest / 2)
    trainer.evaluate()  # the user's own
    assert trainer.lr_scheduler.scheduler.state_dict()["state"]["lowest_validation"] == lowest / 2
    assert not trainer.lr_scheduler.scheduler.state_dict()["state"]["validation_rose"]


def test_new_weights_are_not_held_down(make):
    assert trained(make()).max_scale == 1000


def test_other_rules_are_not_given_a_bound_that_they_do_not_know(tuning):
    assert trained(tuning, build=GreedyLR.paper, min_lr=1e-6).max_lr == 1.0


def test_adapters_are_on_something_pre_trained(make):
    model = make().model
    assert not is_pretrained(model)
    model.peft_config = {"default": None}  # as PeftModel has it
    assert is_pretrained(model)
