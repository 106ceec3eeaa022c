"""A compiled optimizer step with a tensor learning rate is compiled once, however often the learning rate changes."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from greedylr import GreedyLR

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
MOVES = {"patience": 0, "min_lr": 1e-6, "eps": 0.0}


@pytest.fixture
def problem(digits):
    torch.manual_seed(0)
    torch._dynamo.reset()
    images, labels = digits
    model = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.Tanh(), torch.nn.Linear(16, 10))

    def loss(step):
        batch = slice(32 * step, 32 * step + 32)
        return torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])

    yield model, loss
    torch._dynamo.reset()


def train(optimizer, step_of, loss, steps=30):
    scheduler = GreedyLR.paper(optimizer, **MOVES)
    seen, lrs = [], []
    scheduler.subscribe(seen.append)
    for step in range(steps):
        value = loss(step)
        optimizer.zero_grad()
        value.backward()
        lrs.append(float(optimizer.param_groups[0]["lr"]))
        step_of()
        scheduler.step(value)
    return scheduler, [decision.loss for decision in seen], lrs


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("backend", ["counter", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_step_is_not_compiled_again(problem, replay, kind, backend):
    model, loss = problem
    counter = CompileCounter()
    lr = torch.tensor(0.01, dtype=torch.float64)
    optimizer = kind(model.parameters(), lr=lr, **({} if kind is torch.optim.SGD else {"capturable": False}))
    compiled = torch.compile(optimizer.step, backend=counter if backend == "counter" else "inductor")
    # In the first two steps the optimizer's own state comes to be.
    train(optimizer, compiled, loss, steps=2)
    before = counter.frame_count, torch._dynamo.utils.counters["stats"]["unique_graphs"]
    scheduler, losses, lrs = train(optimizer, compiled, loss)
    assert (counter.frame_count, torch._dynamo.utils.counters["stats"]["unique_graphs"]) == before
    assert before[1] > 0
    assert optimizer.param_groups[0]["lr"] is lr, "written in place"
    assert len(set(lrs)) > 10
    assert lrs == [lr for (lr,) in replay(scheduler.config, losses, [lrs[0]])[:-1]]


def test_compiled_equals_eager(problem):
    import copy

    model, loss = problem
    start = copy.deepcopy(model.state_dict())
    runs = []
    for compile in (False, True):
        model.load_state_dict(start)
        optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.01))
        step = torch.compile(optimizer.step, backend="eager") if compile else optimizer.step
        runs.append(train(optimizer, step, loss)[1:])
    for eager, compiled in zip(*runs):
        assert compiled == pytest.approx(eager, rel=1e-5)


@pytest.mark.cuda
def test_a_captured_step_follows(problem, digits):
    model, _ = problem
    model = model.cuda()
    images, labels = (tensor[:32].cuda() for tensor in digits)
    lr = torch.tensor(0.01, device="cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, capturable=True)
    scheduler = GreedyLR.paper(optimizer, **MOVES)

    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()
    lrs = []
    for _ in range(20):
        graph.replay()
        scheduler.step(loss)
        lrs.append(float(lr))
    assert len(set(lrs)) > 10
    before = [parameter.clone() for parameter in model.parameters()]
    lr.zero_()
    graph.replay()
    assert all(map(torch.equal, before, model.parameters())), "the captured step reads the tensor"
