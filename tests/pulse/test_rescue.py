"""Going back: everything is restored, the learning rate is cut, time goes on, and there is an end to it."""

import copy
import gc
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from greedylr import Action, DefaultConfig, GreedyLR
from greedylr.control import rule
from greedylr.control.paper.config import PaperConfig
from greedylr.pulse import Recorder, Trace
from greedylr.pulse.diagnosis.findings import Kind
from greedylr.pulse.diagnosis.health import examine
from greedylr.torch.rescue import Rescue, RescueError
from greedylr.torch.snapshot import Snapshot

JUMPS = {Kind.LEVEL_SHIFT, Kind.LOSS_SCALE, Kind.NO_RECOVERY}


class Loop:
    """A model whose loss is what a test says."""

    def __init__(self, build=GreedyLR, optimizer=torch.optim.AdamW, recorder=None, **settings):
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
        self.optimizer = optimizer(self.model.parameters(), lr=0.01)
        self.scheduler = build(self.optimizer)
        self.recorder = recorder
        self.rescue = Rescue(self.model, self.optimizer, self.scheduler, recorder=recorder, **settings)

    def step(self, loss=1.0):
        x = torch.randn(8, 3)
        self.optimizer.zero_grad()
        (self.model(x).square().mean() * (loss if math.isfinite(loss) else math.nan)).backward()
        self.optimizer.step()
        self.scheduler.step(loss)
        return self.rescue.step()

    def content(self):
        return [*self.model.state_dict().values(), *flat(list(self.optimizer.state.values()))]


def flat(state):
    """Every number in it, whatever holds it."""
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else None
    return [state] if parts is None else [number for part in parts if part is not None for number in flat(part)]


def same(a, b):
    return len(a) == len(b) and all(torch.equal(torch.as_tensor(x), torch.as_tensor(y)) for x, y in zip(a, b))


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.Adagrad, torch.optim.RMSprop])
@pytest.mark.parametrize("build", [lambda o: GreedyLR(o, warmup_steps=0), lambda o: GreedyLR.paper(o, min_lr=1e-6)])
def test_everything_is_as_it_was_and_the_learning_rate_is_lower(build, optimizer):
    loop = Loop(build, optimizer, every=10)
    for _ in range(10):
        loop.step()
    kept = [torch.as_tensor(value).clone() for value in loop.content()]
    lr = loop.scheduler.get_last_lr()[0]
    for _ in range(9):
        loop.step()
    assert not same(kept, loop.content())
    assert loop.step(math.nan)
    assert same(kept, loop.content())
    assert loop.rescue.last == 10
    assert loop.scheduler.last_epoch == 20  # time goes on
    assert loop.scheduler.get_last_lr()[0] == pytest.approx(0.5 * lr)
    assert loop.optimizer.param_groups[0]["lr"] == loop.scheduler.get_last_lr()[0]
    assert not loop.step()


def test_tensors_stay_the_same_tensors():
    loop = Loop(every=10, optimizer=lambda parameters, lr: torch.optim.Adam(parameters, lr=torch.tensor(lr)))
    for _ in range(15):
        loop.step()
    addresses = [value.data_ptr() for value in loop.content()]
    lr = loop.optimizer.param_groups[0]["lr"]
    loop.step(math.inf)
    assert [value.data_ptr() for value in loop.content()] == addresses
    assert loop.optimizer.param_groups[0]["lr"] is lr


def test_before_the_first_step_of_the_optimizer_there_is_no_state():
    loop = Loop(every=100)
    loop.step(math.nan)
    assert loop.rescue.last == 0
    assert all(not state for state in loop.optimizer.state.values())
    assert all(bool(value.isfinite().all()) for value in loop.model.parameters())


def test_it_gives_up_with_a_clear_error():
    loop = Loop(every=50, most=3)
    for _ in range(60):
        loop.step()
    for _ in range(3):
        assert loop.step(math.nan)
    with pytest.raises(
        RescueError, match=r"gave up at step 64: 3 rescues in a row did not help \(non_finite, loss nan\)"
    ):
        loop.step(math.nan)


def test_a_second_rescue_in_a_row_goes_further_back():
    loop = Loop(every=10)
    for _ in range(35):
        loop.step()
    loop.step(math.nan)
    assert loop.rescue.last == 30
    loop.step(math.nan)
    assert loop.rescue.last == 20


def test_a_snapshot_right_before_the_trouble_is_not_trusted():
    loop = Loop(every=10)
    for _ in range(31):
        loop.step()
    loop.step(math.nan)
    assert loop.rescue.last == 20


def test_others_are_restored_too():
    class Average:
        def __init__(self):
            self.value = torch.zeros(1)

        def state_dict(self):
            return {"value": self.value}

        def load_state_dict(self, state):
            self.value = state["value"].clone()

    average = Average()
    loop = Loop(every=10, also=[average])
    for number in range(19):
        loop.step()
        average.value.fill_(number)
    loop.step(math.nan)
    assert average.value.item() in (9.0, 8.0)


def test_what_is_held_in_lists_is_restored_too():
    class Shadow:  # as torch_ema has it
        def __init__(self, model):
            self.model, self.weights = model, [p.detach().clone() for p in model.parameters()]
            self.history = (torch.zeros(2), [torch.zeros(3)])

        def update(self):
            for weight, parameter in zip(self.weights, self.model.parameters()):
                weight.lerp_(parameter.detach(), 0.1)
            self.history[1][0].add_(1)

        def state_dict(self):
            return {"shadow_params": self.weights, "history": self.history}

        def load_state_dict(self, state):  # keeps what it is given
            self.weights, self.history = state["shadow_params"], state["history"]

    loop = Loop()
    loop.rescue.close()
    shadow = Shadow(loop.model)
    loop.rescue = Rescue(loop.model, loop.optimizer, loop.scheduler, also=[shadow])
    kept = [weight.clone() for weight in shadow.weights]
    for _ in range(2):  # What it was given once must not have got into the snapshot.
        for _ in range(8):
            loop.step()
            shadow.update()
        for weight in shadow.weights:
            weight.fill_(math.nan)
        assert loop.step(math.nan)
        assert loop.rescue.last == 0
        assert same(kept, shadow.weights)
        assert shadow.history[1][0].tolist() == [0.0] * 3


def test_the_memory_of_lbfgs_is_restored():
    loop = Loop(every=10)
    loop.rescue.close()
    loop.optimizer = torch.optim.LBFGS(loop.model.parameters(), lr=0.1, history_size=4)
    loop.scheduler = GreedyLR(loop.optimizer)
    loop.rescue = Rescue(loop.model, loop.optimizer, loop.scheduler, every=5)
    x = torch.randn(8, 3)

    def step(observed=None):
        def closure():
            loop.optimizer.zero_grad()
            loss = (loop.model(x) - x.flip(1)).square().mean()
            loss.backward()
            return loss

        loss = loop.optimizer.step(closure)
        loop.scheduler.step(loss if observed is None else observed)
        return loop.rescue.step()

    for _ in range(5):
        step()
    kept = [torch.as_tensor(value).clone() for value in loop.content()]
    for _ in range(6):
        step()
    for number in flat(list(loop.optimizer.state.values())):
        if isinstance(number, torch.Tensor):
            number.fill_(math.nan)
    assert step(math.nan)
    assert loop.rescue.last == 5
    assert same(kept, loop.content())


def test_no_more_than_two_snapshots_are_held():
    class Counts:
        most = 0

        def state_dict(self):
            self.most = max(self.most, sum(type(one) is Snapshot for one in gc.get_objects()))
            return {}

        def load_state_dict(self, state):
            pass

    gc.collect()
    counts = Counts()
    loop = Loop(every=5, also=[counts])
    for _ in range(30):
        loop.step()
    assert counts.most == 1, "beside the one that is being made"


def test_a_group_that_is_added_is_taken_in_by_a_new_snapshot():
    loop = Loop(every=100)
    for _ in range(10):
        loop.step()
    more = torch.nn.Parameter(torch.ones(2))
    loop.optimizer.add_param_group({"params": [more], "lr": 0.001})
    assert not loop.step()
    assert loop.step(math.nan)
    assert loop.rescue.last == 11
    assert all(bool(value.isfinite().all()) for value in loop.model.parameters())


def test_trouble_right_after_a_group_was_added_changes_nothing():
    loop = Loop(every=100)
    for _ in range(10):
        loop.step()
    loop.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.001})
    with torch.no_grad():
        loop.model[0].weight.fill_(5.0)
    loop.scheduler.step(math.nan)
    kept = [torch.as_tensor(value).clone() for value in loop.content()]
    state = loop.scheduler.state_dict()
    with pytest.raises(RescueError, match=r"cannot go back at step 11 .* groups of \[4, 1\] parameters, and had \[4\]"):
        loop.rescue.step()
    assert same(kept, loop.content())
    assert loop.scheduler.state_dict() == state


def test_a_recorder_that_was_closed_is_noticed_before_anything_is_restored(tmp_path):
    with Recorder(tmp_path) as recorder:
        loop = Loop(every=10, recorder=recorder)
        loop.step()

    def closed(*words, **more):
        raise ValueError("this recorder is closed")

    recorder.mark = closed
    with torch.no_grad():
        loop.model[0].weight.fill_(5.0)
    loop.scheduler.step(math.nan)
    state = loop.scheduler.state_dict()
    with pytest.raises(ValueError, match="this recorder is closed"):
        loop.rescue.step()
    assert loop.rescue.last == -1
    assert loop.model[0].weight.unique().tolist() == [5.0]
    assert loop.scheduler.state_dict() == state


@pytest.mark.parametrize(
    ("name", "value"),
    [("every", 0), ("every", 1.5), ("most", 0), ("factor", 0.0), ("factor", 1.5), ("factor", math.nan)],
)
def test_what_is_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        Loop(**{name: value})


def test_a_closed_one_does_nothing():
    loop = Loop(every=10)
    loop.scheduler.step(math.nan)
    loop.rescue.close()
    for loss in [math.nan] + [1.0] * 20:
        assert not loop.step(loss)
    assert loop.rescue.last == -1


@pytest.fixture(scope="module")
def runs(tmp_path_factory, planted):
    """Real runs: the twin, and ones with a NaN."""
    path = tmp_path_factory.mktemp("runs")
    everything = ("disruption", "shard", "nan")
    planted.train(path / "rescued", everything, rescue=True)
    planted.train(path / "dead", everything)
    return path


def findings(path):
    return [(finding.kind, finding.first) for finding in examine(Trace.load(path))]


@pytest.mark.parametrize("name", ["rescued", "dead"])
def test_all_that_was_planted_is_named_at_its_step(runs, planted, name):
    found = findings(runs / name)
    assert (Kind.DISRUPTION, planted.DISRUPTION) in found
    assert (Kind.NON_FINITE, planted.NAN) in found
    assert [abs(step - planted.SHARD) <= 5 for kind, step in found if kind in JUMPS] == [True]
    assert ((Kind.DIVERGENCE, planted.NAN) in found) == (name == "dead")


def test_rescues_are_marked(runs, planted):
    marks = [mark.step for mark in Trace.load(runs / "rescued").marks if mark.name == "rescue"]
    assert planted.NAN in marks
    assert not Trace.load(runs / "dead").marks


@pytest.mark.parametrize("plant", [("nan",), ("disruption", "nan"), ("disruption", "shard", "nan")])
def test_with_rescue_the_run_ends_like_its_undisturbed_twin(tmp_path, planted, plant):
    # A new shard is no disturbance: it is what there is to learn from then on.
    twin = planted.train(tmp_path / "twin", [name for name in plant if name == "shard"])
    rescued = planted.train(tmp_path / "rescued", plant, rescue=True)
    assert rescued == pytest.approx(twin, rel=0.02)


def test_without_rescue_it_is_lost(tmp_path, planted):
    assert math.isnan(planted.train(tmp_path / "dead", ("nan",)))


def test_new_data_are_not_the_models_fault(tmp_path):
    scheduler = None
    with Recorder(tmp_path) as recorder:
        loop = Loop(lambda o: GreedyLR(o, warmup_steps=0, config=DefaultConfig(window=20)), recorder=recorder, every=20)
        scheduler = loop.scheduler
        recorder.watch(scheduler)
        noise = torch.randn(400, generator=torch.Generator().manual_seed(0)).mul(0.01).tolist()
        for step in range(400):
            loop.step((1.0 if step < 200 else 5.0) + noise[step])
    marks = Trace.load(tmp_path).marks
    assert [mark.name for mark in marks] in (["rescue", "explosion let be", "rescue"], [])


# Everything goes back, and the horizon stays where it is.


def one_weight(lr=0.1, build=torch.optim.SGD, **settings):
    weight = torch.nn.Linear(1, 1)
    return weight, build(weight.parameters(), lr=lr, **settings)


@pytest.mark.parametrize("at", [30, 101, 150, 199, 239, 241, 250, 333, 355, 390, 399])
@pytest.mark.parametrize(
    "chosen", [{"warmup_steps": 0, "anneal": 0.1, "config": DefaultConfig(window=50)}, {}, {"anneal": 1.0}]
)
def test_a_rescue_does_not_miss_the_horizon(chosen, at):
    model, optimizer = one_weight()
    scheduler = GreedyLR(optimizer, total_steps=400, **chosen)
    rescue = Rescue(model, optimizer, scheduler, every=100)
    for step in range(1, 401):
        noise = 0.1 * ((7 * step) % 5)
        scheduler.step(float("nan") if step == at else 2 + noise)
        rescue.step()
    assert rescue.last >= 0
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-6)


@settings(max_examples=50)
@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.1, 1.0), st.sampled_from([None, 40, 80, 150]), st.booleans())
def test_the_memory_of_then_goes_on_at_the_step_of_now(before, between, factor, total, paper):
    config = PaperConfig(patience=1, min_lr=1e-4) if paper else DefaultConfig(total_steps=total, window=5)
    then = rule.start(config, [0.1])
    for step in range(before):
        rule.observe(config, then, 2 + 0.1 * ((7 * step) % 5))
    kept = copy.deepcopy(then)
    resumed = rule.resume(config, then, before + between, factor)
    assert then == kept
    assert resumed.step == before + between
    fresh = None
    for step in range(150):
        loss = 2 + 0.1 * ((3 * step) % 7)
        decision = rule.observe(config, resumed, loss)
        rule.observe(config, then, loss)
        assert decision.step == before + between + step + 1
        if not paper and total is not None and decision.step >= total:
            fresh = decision.lr_after[0]
    if fresh is not None:
        assert fresh == pytest.approx(1e-6)
    assert kept.losses is not resumed.losses


def test_numbers_that_an_optimizer_keeps_in_its_groups_go_back_too():
    prodigyopt = pytest.importorskip("prodigyopt")
    schedulefree = pytest.importorskip("schedulefree")
    for build in (prodigyopt.Prodigy, schedulefree.AdamWScheduleFree):
        model, optimizer = one_weight(1.0, build)
        if hasattr(optimizer, "train"):
            optimizer.train()
        scheduler = GreedyLR(optimizer, warmup_steps=0)
        rescue = Rescue(model, optimizer, scheduler, every=10)
        for step in range(40):
            loss = model(torch.ones(1)).square().sum() * (float("nan") if step == 20 else 1.0)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step(loss)
            if rescue.step():
                assert rescue.last == 10
                numbers = [value for value in optimizer.param_groups[0].values() if isinstance(value, float)]
                assert not any(map(math.isnan, numbers)), optimizer.param_groups[0]
        assert math.isfinite(float(model(torch.ones(1)).detach()))
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5)


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight
        self.base = torch.nn.Linear(100, 100).requires_grad_(False)
        self.register_buffer("lost", torch.zeros(3), persistent=False)


def test_what_is_copied_is_copied_once_and_what_is_lost_is_not():
    model = Tied()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = GreedyLR(optimizer, warmup_steps=0)
    rescue = Rescue(model, optimizer, scheduler, every=10)
    ((_, _, snapshot),) = rescue._points
    assert sum(one.numel() for one in snapshot.tensors.values()) == 16 + 3 + 100 * 101
    before = model.a.weight.detach().clone()
    model.lost.fill_(7)
    with torch.no_grad():
        model.a.weight.fill_(float("nan"))
    scheduler.step(float("nan"))
    assert rescue.step()
    assert model.a.weight is model.b.weight
    assert torch.equal(model.a.weight, before)
    assert model.lost.tolist() == [0, 0, 0]


class Stubborn:
    def __init__(self, value, refuses=False):
        self.value, self.refuses = value, refuses

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        if self.refuses:
            raise KeyError("value")
        self.value = state["value"]


def test_all_goes_back_or_nothing():
    model, optimizer = one_weight()
    scheduler = GreedyLR(optimizer, warmup_steps=0)
    willing, stubborn = Stubborn(1), Stubborn(1, refuses=True)
    rescue = Rescue(model, optimizer, scheduler, also=[willing, stubborn])
    willing.value = stubborn.value = 2
    with torch.no_grad():
        model.weight.fill_(3.0)
    scheduler.step(float("nan"))
    before = scheduler.state_dict()
    with pytest.raises(RescueError, match=r"Stubborn refused its own state \(KeyError.*Nothing has been restored"):
        rescue.step()
    assert (willing.value, model.weight.item()) == (2, 3.0)
    assert scheduler.state_dict() == before
    stubborn.refuses = False
    scheduler.step(float("nan"))
    assert rescue.step()
    assert (willing.value, stubborn.value) == (1, 1)


def test_one_outlier_of_a_domain_restores_nothing():
    for seed in range(20):
        r = random.Random(seed)
        model, optimizer = one_weight()
        scheduler = GreedyLR(optimizer, warmup_steps=0, level_by="d")
        rescue = Rescue(model, optimizer, scheduler)
        for step in range(600):
            loss = 2 + 0.5 * (step % 4) + r.gauss(0, 0.1)
            scheduler.step(loss * (10 if step == 300 else 1), composition={"d": str(step % 4)})
            assert not rescue.step()


@settings(max_examples=100)
@given(
    st.integers(1, 90),
    st.integers(0, 60),
    st.sampled_from([40, 80, 100, 150]),
    st.floats(0.1, 1),
    st.sampled_from([0, 10]),
)
def test_after_a_rescue_the_horizon_is_followed_as_without_trouble(before, between, total, anneal, decade):
    config = DefaultConfig(
        total_steps=total, anneal=anneal, window=7, decade_steps=decade, warmup_steps=0, min_scale=0.0
    )
    state = rule.start(config, [0.1, 0.02])
    kept = None
    for step in range(1, total + 1):
        rule.observe(config, state, 2 + 0.1 * ((7 * step) % 5))
        if step == before:
            kept = copy.deepcopy(state)
        if kept is not None and step == before + between:
            resumed = rule.resume(config, kept, step, 0.5)
            assert resumed.spike_step == (-1 if kept.spike_step < 0 else kept.spike_step + between)
            assert resumed.scale == 0.5 * kept.scale
            assert resumed.losses == kept.losses
            assert resumed.climbing == (kept.climbing and step < config.anneal_start)
            # What is derived is derived as at any other step.
            for later in range(step, total):
                room = total - config.anneal_start
                envelope = min(1.0, (total - later) / room)
                assert resumed.lrs == pytest.approx([lr * resumed.scale * envelope for lr in (0.1, 0.02)])
                rule.observe(config, resumed, 2 + 0.1 * ((3 * later) % 7))
            assert resumed.lrs == pytest.approx((0.0, 0.0))
            return


def test_a_spike_right_before_a_snapshot_is_one_right_before_after_going_back():
    config = DefaultConfig(warmup_steps=0, window=5)
    state = rule.start(config, [0.1])
    for step in range(20):
        rule.observe(config, state, 1 + 0.01 * (step % 3))
    rule.observe(config, state, 50.0)
    resumed = rule.resume(config, state, 70, 1.0)
    assert rule.observe(config, resumed, 50.0).action is rule.observe(config, state, 50.0).action is Action.EXPLOSION


def memory_of(rescue):
    """Bytes that its snapshots hold, each piece of memory once."""
    held = {one.data_ptr(): one.nbytes for point in rescue._points for one in point.snapshot.tensors.values()}
    return sum(held.values())


def trained(model, parameters=None, build=torch.optim.SGD, **others):
    optimizer = build(model.parameters() if parameters is None else parameters, lr=0.1)
    scheduler = GreedyLR(optimizer, warmup_steps=0)
    return optimizer, scheduler, Rescue(model, optimizer, scheduler, every=10, **others)


def test_what_does_not_change_is_held_once_by_both_snapshots():
    model = Tied()
    base, rest = 4 * 100 * 101, 4 * (16 + 3)
    _, scheduler, rescue = trained(model)
    for _ in range(10):
        with torch.no_grad():
            model.a.weight.add_(1)
        scheduler.step(1.0)
        rescue.step()
    assert [point.step for point in rescue._points] == [0, 10]
    assert memory_of(rescue) == base + rest + 4 * 16  # only the weight has changed


def test_what_is_not_trained_goes_back_as_well():
    class Bootstrapped(torch.nn.Module):  # A target network follows the one that is trained.
        def __init__(self):
            super().__init__()
            self.online = torch.nn.Linear(2, 2)
            self.target = torch.nn.Linear(2, 2).requires_grad_(False)

    model = Bootstrapped()
    temperature = torch.nn.Parameter(torch.ones(()))  # belongs to the loss
    _, scheduler, rescue = trained(model, [*model.online.parameters(), temperature])
    target = model.target.weight.clone()
    model.target.weight.data.fill_(math.nan)
    temperature.data.fill_(math.nan)
    scheduler.step(math.nan)
    assert rescue.step()
    assert torch.equal(model.target.weight, target)
    assert temperature.item() == 1.0


def test_an_average_of_the_weights_goes_back():
    model = torch.nn.Linear(2, 2)
    average = torch.optim.swa_utils.AveragedModel(model)
    _, scheduler, rescue = trained(model, also=[average])
    average.update_parameters(model)
    with torch.no_grad():
        model.weight.fill_(math.nan)
    average.update_parameters(model)
    scheduler.step(math.nan)
    assert rescue.step()
    assert int(average.n_averaged) == 0
    assert torch.equal(average.module.weight, model.weight)
    assert bool(model.weight.isfinite().all())


def test_a_grad_scaler_goes_back():
    model = torch.nn.Linear(2, 2)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    _, scheduler, rescue = trained(model, also=[scaler])
    scaler.scale(torch.ones(()))
    scaler.update(1.0)
    scheduler.step(math.nan)
    assert rescue.step()
    assert scaler.get_scale() == 64.0


@pytest.mark.filterwarnings("ignore")
def test_layers_that_are_parametrized_or_lazy_go_back():
    model = torch.nn.Sequential(
        torch.nn.LazyLinear(3), torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(3, 3))
    )
    optimizer, scheduler, rescue = trained(model)
    kept = None
    for step in range(14):
        loss = model(torch.ones(2, 2)).sum()
        loss.backward()
        optimizer.step()
        scheduler.step(math.nan if step == 12 else 1.0)
        gone_back = rescue.step()
        if step == 10:
            kept = {name: one.clone() for name, one in rescue._points[0].snapshot.tensors.items()}
        assert gone_back == (step == 12)
        if gone_back:
            assert rescue.last == 1
            assert all(torch.equal(one, kept[name]) for name, one in model.named_parameters())


@pytest.mark.filterwarnings("ignore")
def test_there_is_nothing_to_go_back_to_before_a_lazy_layer_has_weights():
    model = torch.nn.Sequential(torch.nn.LazyLinear(3))
    _, scheduler, rescue = trained(model)
    model(torch.ones(2, 2))
    scheduler.step(math.nan)
    with pytest.raises(RescueError, match=r"lazy parameters when the snapshot was taken\. Run it once before"):
        rescue.step()


def test_after_a_state_was_loaded_the_old_snapshots_are_of_another_run():
    model = torch.nn.Linear(2, 2)
    _, scheduler, rescue = trained(model)
    other = GreedyLR(torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1), warmup_steps=0)
    for _ in range(50):
        other.step(1.0)
    with torch.no_grad():
        model.weight.fill_(3.0)
    scheduler.load_state_dict(other.state_dict())
    early = copy.deepcopy(scheduler.state_dict())
    scheduler.step(math.nan)
    with pytest.raises(RescueError, match="a state was loaded, and the snapshots are from before"):
        rescue.step()
    scheduler.load_state_dict(early)
    scheduler.step(1.0)
    assert not rescue.step()
    with torch.no_grad():
        model.weight.fill_(math.nan)
    scheduler.step(math.nan)
    assert rescue.step()
    assert rescue.last == 51
    assert model.weight.unique().tolist() == [3.0]


def test_a_horizon_that_moves_is_no_state_that_was_loaded():
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = GreedyLR(optimizer, warmup_steps=0, total_steps=100)
    rescue = Rescue(model, optimizer, scheduler)
    scheduler.step(1.0)
    scheduler.set_total_steps(40)
    scheduler.step(math.nan)
    assert rescue.step()
    for _ in range(38):
        scheduler.step(1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-6)


def test_a_model_that_has_changed_is_named_and_nothing_goes_back():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    _, scheduler, rescue = trained(model)
    with torch.no_grad():
        model[0].weight.fill_(7.0)
    model[1].bias = torch.nn.Parameter(torch.zeros(5))
    state = scheduler.state_dict()
    scheduler.step(math.nan)
    with pytest.raises(RescueError, match=r"to step 0: 1.bias was \(2,\) at the snapshot, and is \(5,\) now"):
        rescue.step()
    assert model[0].weight.unique().tolist() == [7.0]
    assert scheduler.state_dict()["state"]["step" if "step" in state["state"] else "seen"] == 1


def test_odd_buffers_go_back_or_are_caches():
    model = torch.nn.Linear(2, 2)
    model.register_buffer("expanded", torch.zeros(1, 3).expand(4, 3))
    model.register_buffer("cache", torch.zeros(2), persistent=False)
    with torch.inference_mode():
        model.register_buffer("inferred", torch.ones(2), persistent=False)
    _, scheduler, rescue = trained(model)
    model.expanded[0].fill_(5.0)
    with torch.inference_mode():
        model.inferred.fill_(math.nan)
    model.cache = torch.zeros(9)  # grew with the longest sequence
    scheduler.step(math.nan)
    assert rescue.step()
    assert model.expanded.tolist() == [[0.0] * 3] * 4
    assert model.inferred.tolist() == [1.0, 1.0]
    assert model.cache.shape == (9,)


def test_what_modules_keep_beside_tensors_goes_back():
    class Counting(torch.nn.Linear):
        count = 0

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    model = torch.nn.Sequential(Counting(2, 2))
    _, scheduler, rescue = trained(model)
    model[0].count = 9
    scheduler.step(math.nan)
    assert rescue.step()
    assert model[0].count == 0


def test_a_recorder_that_fails_puts_back_the_others():
    class Failing:
        def mark(self, name, **details):
            raise ValueError("this recorder is closed")

    model = torch.nn.Linear(2, 2)
    one = Stubborn(1)
    _, scheduler, rescue = trained(model, also=[one], recorder=Failing())
    one.value = 2
    scheduler.step(math.nan)
    with pytest.raises(ValueError, match="this recorder is closed"):
        rescue.step()
    assert one.value == 2


def test_what_cannot_be_put_back_is_named():
    model = torch.nn.Linear(2, 2)
    one = Stubborn(1, refuses=True)
    _, scheduler, rescue = trained(model, also=[one])
    scheduler.step(math.nan)
    with pytest.raises(RescueError, match="Nothing has been restored, but Stubborn may be changed"):
        rescue.step()


def test_state_that_did_not_exist_is_gone():
    model = torch.nn.Linear(2, 2)
    optimizer, scheduler, rescue = trained(model, build=torch.optim.Adam)
    optimizer.state["shared"]["count"] = 3
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler.step(math.nan)
    assert rescue.step()
    assert not optimizer.state
