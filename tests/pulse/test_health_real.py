"""Findings in real training runs, under the published rule, so that they do not hang on the default one."""

import pytest
import torch

from greedylr import GreedyLR
from greedylr.pulse import Recorder, Trace, recorder
from greedylr.pulse.health import Kind, examine

HELD = {"min_lr": 1e-9, "max_lr": 1e3, "patience": 10**6}  # never moves


@pytest.fixture
def findings(tmp_path, planted):
    """Trains an MLP on digits, and names the findings."""

    def train(steps=1500, rows=1400, lr=1e-3, settings=HELD, scale=lambda step: 1.0, hook=None, width=64):
        torch.manual_seed(0)
        x, y = planted.digits()
        model = torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 10))
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
        scheduler = GreedyLR.paper(optimizer, **settings)
        other = None if hook is None else hook(optimizer)
        generator = torch.Generator().manual_seed(0)
        with Recorder(tmp_path, scheduler) as kept:
            for step in range(1, steps + 1):
                batch = torch.randint(0, rows, (32,), generator=generator)
                loss = torch.nn.functional.cross_entropy(model(x[batch]), y[batch]) * scale(step)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step(loss)
                if other is not None:
                    other.step()
                if step % 50 == 0:
                    with torch.no_grad():
                        kept.log(val_loss=torch.nn.functional.cross_entropy(model(x[1400:]), y[1400:]))
        return {one.kind: one for one in examine(Trace.load(tmp_path))}

    return train


def test_a_healthy_run(findings):
    assert set(findings(steps=600)) <= {Kind.PLATEAU}


def test_overfitting(findings):
    assert Kind.OVERFITTING in findings(rows=100, lr=3e-3, width=256)


def test_divergence(findings):
    assert Kind.DIVERGENCE in findings(
        steps=800, hook=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 1.02)
    )


def test_loss_scale(findings):
    found = findings(lr=1e-4, scale=lambda step: 1.0 if step <= 700 else 32.0)
    assert abs(found[Kind.LOSS_SCALE].first - 701) <= 2


def test_something_else_sets_the_learning_rate(findings, monkeypatch):
    monkeypatch.setattr(recorder, "WRITE_EVERY", 0.0)
    found = findings(steps=300, hook=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.999))
    assert Kind.LR_IGNORED in found


@pytest.mark.filterwarnings("ignore:the initial LR")
def test_raised_to_the_bound(findings):
    settings = {"min_lr": 1e-9, "max_lr": 1.2e-3, "patience": 1, "smooth": True}
    assert Kind.AT_BOUND in findings(lr=1e-3, settings=settings, steps=600)


def test_sinking(findings):
    assert Kind.SINKING in findings(settings={"min_lr": 1e-9, "max_lr": 1.0, "patience": 2, "factor": 0.9})


def test_plateau(findings):
    assert Kind.PLATEAU in findings(lr=2e-2, steps=4000, width=1)
