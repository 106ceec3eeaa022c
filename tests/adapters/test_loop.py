"""What stands between a library's loop and the scheduler."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler

from greedylr import GreedyLR
from greedylr.adapters.loop import LoopScheduler, SkippedSteps


@pytest.fixture
def scheduler():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    return GreedyLR.paper(optimizer, patience=0, min_lr=1e-6)


def observed(loop, losses):
    seen = []
    unsubscribe = loop.subscribe(lambda decision: seen.append(decision.loss))
    for loss in losses:
        loop.add(loss)
    loop.step()
    loop.step()
    unsubscribe()
    return seen


@pytest.mark.parametrize(("mean", "expected"), [(False, 6.0), (True, 2.0)])
def test_micro_batches_make_one_observation(scheduler, mean, expected):
    assert observed(LoopScheduler(scheduler, mean), [1.0, 2.0, 3.0]) == [expected]
    assert observed(LoopScheduler(scheduler, mean), list(torch.tensor([1.0, 2.0, 3.0]))) == [expected]


def test_what_micro_batches_were_made_of_is_put_together(scheduler):
    seen = []
    scheduler.subscribe(lambda decision: seen.append(scheduler.composition))
    loop = LoopScheduler(scheduler)
    for micro in (
        [{"domain": "web", "length": 10}],
        [{"domain": "web", "length": 10}, {"domain": "code", "length": torch.tensor(20)}, {"domain": "web"}],
        [None, {"length": 3}],
        [None, None],
        [{"length": None, "domain": "web"}, {"length": 6, "domain": None}, {"domain": "code"}],
        [{"domain": None}, {"domain": None, "length": 1}],
    ):
        for batch in micro:
            loop.add(1.0, batch)
        loop.step()
    loop.add(1.0, {"domain": "forgotten"})
    loop.clear()
    loop.add(1.0)
    loop.step()
    assert seen == [
        {"domain": "web", "length": 10},
        {"domain": "code + web", "length": 15.0},
        {"length": 3},
        None,
        {"length": 6.0, "domain": "code + web"},
        {"length": 1.0},
        None,
    ]


def test_half_precision_is_added_up_in_single(scheduler):
    shares = [torch.tensor(1.0, dtype=torch.bfloat16), torch.tensor(2**-9, dtype=torch.bfloat16)]
    assert observed(LoopScheduler(scheduler), shares) == [1.0 + 2**-9]


def test_what_was_cleared_or_loaded_over_is_not_observed(scheduler):
    loop = LoopScheduler(scheduler)
    loop.add(1.0)
    loop.clear()
    loop.step()
    loop.add(1.0)
    loop.load_state_dict(loop.state_dict())
    loop.step()
    assert scheduler.last_epoch == 0


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch 2.4 about how it pickles its own tensors
def test_it_passes_for_the_scheduler(scheduler):
    loop = LoopScheduler(scheduler)
    assert isinstance(loop, LRScheduler)
    assert loop.optimizer is scheduler.optimizer
    assert (loop.get_last_lr(), loop.get_lr(), loop.base_lrs, loop.last_epoch) == ([0.1], [0.1], [0.1], 0)
    assert loop.state_dict() == scheduler.state_dict()
    for other in (copy.deepcopy(loop), pickle.loads(pickle.dumps(loop))):
        other.add(1.0)
        other.step()
        assert (other.last_epoch, loop.last_epoch) == (1, 0)
    assert repr(loop) == "LoopScheduler(GreedyLR.paper(step=0, lr=0.1))"
    with pytest.raises(AttributeError, match="no_such"):
        _ = loop.no_such


def test_a_scale_that_grows_or_stays_is_no_skip():
    class Scaler:
        def __init__(self, scales):
            self.scales = iter(scales)

        def get_scale(self):
            return next(self.scales)

    skips, scaler = SkippedSteps(), Scaler([8.0, 8.0, 16.0, 8.0, 8.0, 4.0])
    skips.start(scaler)
    assert [skips.skipped(scaler) for _ in range(5)] == [False, False, True, False, True]
    skips.start(None)
    assert not skips.skipped(None)


def test_no_library_is_imported_unasked():
    code = (
        "import sys, greedylr.adapters, greedylr.adapters.loop; "
        "print({'transformers', 'trl', 'accelerate', 'lightning', 'keras', 'optax', 'jax'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("adapter", ["keras", "optax"])
def test_what_needs_no_torch_imports_none(adapter):
    pytest.importorskip(adapter)
    pytest.importorskip("jax")
    # Keras imports the backend that it is told.
    code = f"import os, sys; os.environ['KERAS_BACKEND'] = 'jax'; import greedylr.adapters.{adapter}; "
    ran = subprocess.run([sys.executable, "-c", code + "print('torch' in sys.modules)"], capture_output=True, text=True)
    assert ran.stdout.strip() == "False", ran.stderr[-500:]
