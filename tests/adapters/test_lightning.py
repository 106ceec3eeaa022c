"""Lightning, for real: automatic and manual optimization, accumulation, checkpoints, on handwritten digits."""

import contextlib
import copy
import json
import math
import pickle
import sys

import pytest
import torch
from torch.nn import functional

from greedylr import DefaultConfig, GreedyLR

pytest.importorskip("lightning")

from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from greedylr.adapters.lightning import attach
from greedylr.pulse import Recorder, Trace

LOSS_ONLY = {"config": DefaultConfig(polyak=math.inf, catch_up_steps=0)}
"""Without the gradient, which a replay of the losses does not know."""

BRISK = {"patience": 0, "min_lr": 1e-6, "eps": 0.0}  # a move at nearly every step
pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.rank_zero.LightningDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
]


class Model(LightningModule):
    def __init__(self, build=GreedyLR.paper, **settings):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.Tanh(), torch.nn.Linear(16, 10))
        self.build, self.settings = build, settings
        self.micro, self.seen = [], []

    def training_step(self, batch, index):
        loss = functional.cross_entropy(self.net(batch[0]), batch[1])
        self.micro.append(loss.detach())
        return {"loss": loss} if index % 2 else loss

    def configure_optimizers(self):
        chosen = attach(self, torch.optim.SGD(self.parameters(), lr=0.05), self.build, **self.settings)
        greedy = chosen["lr_scheduler"]["scheduler"]
        greedy.subscribe(self.seen.append)
        return chosen


class Stateful:
    """Batches in order; within an epoch Lightning resumes exactly only with a loader that knows where it is."""

    def __init__(self, data):
        self.data, self.position = data, 0

    def __len__(self):
        return len(self.data) // 32

    def __iter__(self):
        self.position %= len(self)
        while self.position < len(self):
            self.position += 1
            yield self.data[32 * (self.position - 1) : 32 * self.position]

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


class Rates(Callback):
    def __init__(self):
        self.lrs = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.lrs.append(optimizer.param_groups[0]["lr"])


@pytest.fixture
def fit(digits, tmp_path):
    images, labels = digits
    data = torch.utils.data.TensorDataset(images[:704], labels[:704])

    def fitted(model, resume=None, **options):
        seed_everything(0, verbose=False)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        options = {"max_epochs": 2, "enable_checkpointing": False, "default_root_dir": tmp_path, **quiet, **options}
        trainer = Trainer(accelerator="cpu", devices=1, **options)
        trainer.fit(model, Stateful(data), ckpt_path=resume)
        return trainer

    return fitted


def test_the_gradient_is_heard(fit):
    """Lightning makes it in a closure that the optimizer's step calls."""
    model = Model(GreedyLR)
    fit(model)
    assert model.lr_schedulers().state_dict()["state"]["slope"] > 0


@pytest.mark.parametrize("build", [GreedyLR, GreedyLR.paper], ids=["default", "paper"])
def test_automatic_optimization(fit, replay, build):
    model, rates = Model(build, **(BRISK if build == GreedyLR.paper else LOSS_ONLY)), Rates()
    fit(model, callbacks=[rates], accumulate_grad_batches=3)
    # 22 micro-batches an epoch: seven steps of three, and one of the single micro-batch that is left.
    groups = [epoch[i : i + 3] for epoch in (model.micro[:22], model.micro[22:]) for i in range(0, 22, 3)]
    losses = [decision.loss for decision in model.seen]
    assert losses == [float(sum(group[1:], group[0]) / len(group)) for group in groups]
    config = model.lr_schedulers().config
    assert rates.lrs == [lr for (lr,) in replay(config, losses, [0.05])[:-1]]
    assert getattr(config, "total_steps", 16) == 16


@pytest.mark.parametrize("automatic", [True, False])
def test_a_recorder_gets_everything(fit, tmp_path, automatic):
    class Recorded(Model):
        automatic_optimization = automatic

        def training_step(self, batch, index):
            loss = super().training_step(batch, index)
            if not automatic:
                self.lr_schedulers().step(self.micro[-1], composition={"ones": int((batch[1] == 1).sum())})
            return loss

        def configure_optimizers(self):
            made_of = {"composition": lambda batch: {"ones": int((batch[1] == 1).sum())}} if automatic else {}
            optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
            return attach(self, optimizer, observers=[recorder], config=DefaultConfig(window=5), **made_of)

    with Recorder(tmp_path / "trace") as recorder:
        fit(Recorded(), max_epochs=1)
    trace = Trace.load(tmp_path / "trace")
    assert trace.last == 22
    assert (trace.config["window"], trace.config["total_steps"]) == (5, 22 if automatic else None)
    assert 22 < trace.composition["ones"].sum() < 22 * 6


@pytest.mark.parametrize("automatic", [True, False])
@pytest.mark.parametrize("settings", [{}, {"await_validation": True}], ids=["default", "awaited"])
def test_validation_is_recorded(fit, digits, tmp_path, automatic, settings):
    class Validated(Model):
        automatic_optimization = automatic

        def training_step(self, batch, index):
            loss = super().training_step(batch, index)
            self.log("train_loss", self.micro[-1])
            if not automatic:
                self.lr_schedulers().step(self.micro[-1])
            return loss

        def val_dataloader(self):
            data = torch.utils.data.TensorDataset(digits[0][:64], digits[1][:64])
            return torch.utils.data.DataLoader(data, batch_size=64)

        def validation_step(self, batch, index):
            loss = functional.cross_entropy(self.net(batch[0]), batch[1])
            self.seen.append(loss.item())
            self.log("val_loss", loss)

        def configure_optimizers(self):
            return attach(self, torch.optim.SGD(self.parameters(), lr=0.05), observers=[recorder], **settings)

    model = Validated()
    with Recorder(tmp_path / "trace") as recorder:
        trainer = fit(model, val_check_interval=11, max_epochs=1)
        trainer.validate(model, verbose=False)
    metrics = Trace.load(tmp_path / "trace").metrics
    assert set(metrics) == {"val_loss"}
    assert metrics["val_loss"].steps.tolist() == [11, 22]
    assert metrics["val_loss"].values.tolist() == model.seen[-3:-1]
    state = trainer.lr_scheduler_configs[0].scheduler.state_dict()["state"]
    # The sanity check and the user's own validations are not heard.
    heard = model.seen[-3:-1] if settings else [sys.float_info.max]
    assert (state["first_validation"], state["lowest_validation"]) == (heard[0], min(heard))


def test_a_skipped_step_and_a_step_without_a_loss_are_no_observations(fit):
    class Odd(Model):
        def training_step(self, batch, index):
            loss = super().training_step(batch, index)
            return None if index == 3 else loss

        def on_after_backward(self):
            if len(self.micro) in (6, 7):
                self.net[0].weight.grad.fill_(torch.inf)

    from lightning.pytorch.plugins.precision import MixedPrecision

    model = Odd(**BRISK)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    precision = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    precision.forward_context = contextlib.nullcontext  # no float16 on the CPU: only its scaler
    fit(model, max_epochs=1, plugins=[precision])
    assert scaler.get_scale() == 2.0
    # The losses as they are, not as they are scaled.
    assert [d.loss for d in model.seen] == [float(loss) for i, loss in enumerate(model.micro) if i not in (3, 5, 6)]


def test_manual_optimization(fit, replay):
    class Manual(Model):
        automatic_optimization = False

        def training_step(self, batch, index):
            optimizer, scheduler = self.optimizers(), self.lr_schedulers()
            loss = functional.cross_entropy(self.net(batch[0]), batch[1])
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            scheduler.step(loss)
            self.micro.append(loss.detach())

        def configure_optimizers(self):
            chosen = attach(self, torch.optim.SGD(self.parameters(), lr=0.05), GreedyLR.paper, **BRISK)
            chosen["lr_scheduler"].subscribe(self.seen.append)
            return chosen

    model, rates = Manual(), Rates()
    fit(model, callbacks=[rates])
    losses = [decision.loss for decision in model.seen]
    assert losses == [float(loss) for loss in model.micro]
    assert rates.lrs == [lr for (lr,) in replay(model.lr_schedulers().config, losses, [0.05])[:-1]]


@pytest.mark.parametrize("stop", [13, 22, 31])
def test_resumed_equals_uninterrupted(fit, tmp_path, stop):
    whole = Model(**BRISK)
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=stop, save_top_k=-1)
    fit(whole, callbacks=[keep], enable_checkpointing=True)
    resumed = Model(**BRISK)
    fit(resumed, resume=tmp_path / f"step={stop}.ckpt")
    assert resumed.seen == whole.seen[stop:]
    assert [d.step for d in resumed.seen] == list(range(stop + 1, 45))
    ours, theirs = (torch.cat([p.detach().flatten() for p in model.parameters()]) for model in (resumed, whole))
    assert torch.equal(ours, theirs)


def test_learning_rate_monitor_shows_it(fit, tmp_path):
    model = Model(**BRISK)
    logger = CSVLogger(tmp_path)
    fit(model, callbacks=[LearningRateMonitor("step")], logger=logger, log_every_n_steps=1)
    lines = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("lr-SGD")
    logged = [float(line.split(",")[column]) for line in lines[1:]]
    assert logged == pytest.approx([d.lr_before[0] for d in model.seen], rel=1e-6)


def test_a_validation_metric_is_lightnings_own_way(fit):
    class Monitored(Model):
        def training_step(self, batch, index):
            loss = super().training_step(batch, index)
            self.log("metric", 5.0 - self.current_epoch, on_step=False, on_epoch=True)
            return loss

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
            scheduler = GreedyLR.paper(optimizer, min_lr=1e-6)
            scheduler.subscribe(self.seen.append)
            how = {"interval": "epoch", "monitor": "metric", "reduce_on_plateau": True}
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **how}}

    model = Monitored()
    fit(model)
    assert [decision.loss for decision in model.seen] == [5.0, 4.0]


def test_fitted_twice_is_observed_once(fit):
    model = Model(**BRISK)
    fit(model, max_epochs=1)
    fit(model, max_epochs=1)
    assert [d.step for d in model.seen] == [*range(1, 23), *range(1, 23)]


def test_ranks_share_one_learning_rate(processes):
    script = """
        import os, json, torch, warnings
        from sklearn.datasets import load_digits
        from torch.nn.functional import cross_entropy
        from lightning.pytorch import LightningModule, Trainer
        from greedylr import GreedyLR
        from greedylr.adapters.lightning import attach

        torch.set_num_threads(1)
        own, seen = [], []

        class Model(LightningModule):
            def __init__(self):
                super().__init__()
                self.net = torch.nn.Linear(64, 10)

            def training_step(self, batch, index):
                loss = cross_entropy(self.net(batch[0]), batch[1])
                own.append(loss.item())
                return loss

            def configure_optimizers(self):
                optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
                chosen = attach(self, optimizer, GreedyLR.paper, patience=0, min_lr=1e-6)
                chosen["lr_scheduler"]["scheduler"].subscribe(seen.append)
                return chosen

        images, labels = load_digits(return_X_y=True)
        data = torch.utils.data.TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
        trainer = Trainer(
            accelerator="cpu", strategy="ddp", devices=2, max_epochs=1, enable_progress_bar=False, logger=False,
            enable_checkpointing=False, enable_model_summary=False,
        )
        trainer.fit(Model(), torch.utils.data.DataLoader(data, batch_size=64))
        print(json.dumps([own, [d.loss for d in seen], [d.lr_after[0].hex() for d in seen]]), flush=True)
        os._exit(0)
    """
    one, other = (json.loads(out.strip().splitlines()[-1]) for out in processes(script, world=2))
    assert one[0] != other[0]
    assert one[1:] == other[1:]
    assert one[1] == pytest.approx([(a + b) / 2 for a, b in zip(one[0], other[0])], rel=1e-12)


# What is made once and used twice.


def fitted(model, digits, tmp_path, epochs=1, callbacks=(), ckpt_path=None, **options):
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, enable_checkpointing=False, callbacks=list(callbacks), **options,
    )  # fmt: skip
    trainer.fit(model, torch.utils.data.DataLoader(digits, batch_size=32), ckpt_path=ckpt_path)
    return trainer


@pytest.fixture
def pairs():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return torch.utils.data.TensorDataset(torch.tensor(images[:320] / 16).float(), torch.tensor(labels[:320]))


def own(lr=0.05, **settings):
    class Own(Model):
        def __init__(self):
            super().__init__(GreedyLR, **settings)
            self.lr = lr

        def configure_optimizers(self):
            return attach(self, torch.optim.SGD(self.parameters(), lr=self.lr), self.build, **self.settings)

    return Own()


def test_a_fitted_module_is_as_it_was_and_so_are_its_copies(pairs, tmp_path):
    model = Model(warmup_steps=0, build=GreedyLR)
    fitted(model, pairs, tmp_path)
    assert "training_step" not in vars(model)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for twin in copies:
        seen = len(twin.seen)
        fitted(twin, pairs, tmp_path)
        assert len(twin.seen) == seen + 10
        assert not torch.equal(next(twin.parameters()), before[0])
    assert all(torch.equal(now, then) for now, then in zip(model.parameters(), before))


def test_a_copy_made_during_a_fit_trains_itself(pairs, tmp_path):
    class Copies(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, index):
            if index == 3:
                self.twins = [copy.deepcopy(pl_module), pickle.loads(pickle.dumps(pl_module))]

    callback, model = Copies(), Model(warmup_steps=0, build=GreedyLR)
    fitted(model, pairs, tmp_path, callbacks=[callback])
    for twin in callback.twins:
        count = len(model.micro)
        twin.training_step((torch.zeros(2, 64), torch.zeros(2, dtype=torch.long)), 0)
        assert (len(twin.micro), len(model.micro)) == (5, count)


def test_a_fit_that_breaks_off_leaves_the_module_as_it_was(pairs, tmp_path):
    class Breaks(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, index):
            raise RuntimeError("broken")

    model = Model(warmup_steps=0, build=GreedyLR)
    with pytest.raises(RuntimeError, match="broken"):
        fitted(model, pairs, tmp_path, callbacks=[Breaks()])
    assert "training_step" not in vars(model)


def test_a_recorder_that_configure_makes_serves_a_search_and_two_fits(pairs, tmp_path):
    from lightning.pytorch.tuner import Tuner

    model = own(warmup_steps=0)
    model.settings["observers"] = lambda: [Recorder(tmp_path / "run")]
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, enable_checkpointing=False,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(pairs, batch_size=32)
    Tuner(trainer).lr_find(model, loader, num_training=5)
    trainer.fit(model, loader)
    fitted(model, pairs, tmp_path)
    trace = Trace.load(tmp_path / "run")
    assert (trace.last, trace.status) == (10, "finished")


def test_the_learning_rate_that_a_search_finds_counts(pairs, tmp_path):
    class Finds(Callback):  # as LearningRateFinder does, after the optimizers were configured
        def on_fit_start(self, trainer, pl_module):
            for group in trainer.optimizers[0].param_groups:
                group["lr"] = 3e-3

    model = own(warmup_steps=0, total_steps=10, anneal=0.0, **LOSS_ONLY)
    trainer = fitted(model, pairs, tmp_path, callbacks=[Finds()])
    assert trainer.lr_scheduler_configs[0].scheduler.base_lrs == [3e-3]
    assert trainer.optimizers[0].param_groups[0]["lr"] == 3e-3


def test_a_resumed_fit_of_more_epochs_follows_them(pairs, tmp_path):
    from greedylr import Action

    class Keeps(Callback):
        def on_train_end(self, trainer, pl_module):
            trainer.save_checkpoint(tmp_path / "last.ckpt")

    settings = {"warmup_steps": 0, "anneal": 0.4, **LOSS_ONLY}
    fitted(Model(GreedyLR, **settings), pairs, tmp_path, epochs=3, callbacks=[Keeps()])
    model = Model(GreedyLR, **settings)
    with pytest.warns(UserWarning, match="total_steps=90, as given to this scheduler, counts in place of the saved 30"):
        trainer = fitted(model, pairs, tmp_path, epochs=9, ckpt_path=tmp_path / "last.ckpt", callbacks=[])
    assert model.seen[0].action is Action.HORIZON
    assert model.seen[0].lr_after[0] == pytest.approx(0.05, rel=0.2)
    assert trainer.optimizers[0].param_groups[0]["lr"] < 1e-5


def test_two_optimizers_have_a_recorder_each_that_hears_of_validation(pairs, tmp_path):
    class Two(LightningModule):
        automatic_optimization = False

        def __init__(self):
            super().__init__()
            self.nets = torch.nn.ModuleList([torch.nn.Linear(64, 10), torch.nn.Linear(64, 10)])
            self.recorders = [Recorder(tmp_path / name) for name in "ab"]

        def training_step(self, batch, index):
            for net, optimizer, scheduler in zip(self.nets, self.optimizers(), self.lr_schedulers()):
                loss = functional.cross_entropy(net(batch[0]), batch[1])
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
                scheduler.step(loss)

        def validation_step(self, batch, index):
            self.log("val_loss", functional.cross_entropy(self.nets[0](batch[0]), batch[1]))

        def configure_optimizers(self):
            return [
                attach(self, torch.optim.SGD(net.parameters(), lr=0.05), warmup_steps=0, observers=[recorder])
                for net, recorder in zip(self.nets, self.recorders)
            ]

    model = Two()
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, enable_checkpointing=False, num_sanity_val_steps=0,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(pairs, batch_size=32)
    trainer.fit(model, loader, loader)
    for name, one in zip("ab", model.recorders):
        one.close()
        assert len(Trace.load(tmp_path / name).metrics["val_loss"].values) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("sgd",), "optimizer must be"), ((torch.optim.SGD([torch.zeros(1)], 0.1), "greedy"), "build must be")],
)
def test_what_does_not_fit_is_said_at_once(arguments, message):
    with pytest.raises(TypeError, match=message):
        attach(Model(), *arguments)
