"""The limit of stability: exact on quadratics for every optimizer, and where training of networks leaves it."""

import math

import pytest
import torch

from greedylr.theory import stability

CURVATURES = torch.tensor([[5.0, 1.0, 0.3]], dtype=torch.float64)
SQUARES = torch.tensor([[4.0, 0.01, 0.001]], dtype=torch.float64)
SLOW = 1 - 1e-9  # of a second moment that does not change while it is looked at


@pytest.fixture(autouse=True)
def _seeded(one_thread):
    torch.manual_seed(0)


def quadratic(model, batch=None):
    return (CURVATURES * model.weight.square()).sum() / 2


def start(build, lr):
    """A point near the minimum of the quadratic, and an optimizer with a state as if it had made many steps."""
    model = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(model.weight, 1e-8)
    optimizer = build(model.parameters(), lr)
    zeros = torch.zeros_like(model.weight)
    group = optimizer.param_groups[0]
    steps = 1e9
    moment = SQUARES * (1 - group["betas"][1] ** steps) if "betas" in group else SQUARES.clone()
    optimizer.state[model.weight] = {
        "step": torch.tensor(steps),
        "exp_avg": zeros.clone(),
        "exp_avg_sq": moment,
        "max_exp_avg_sq": moment.clone(),
        "square_avg": SQUARES.clone(),
        "grad_avg": zeros.clone() + 1e-3,
        "momentum_buffer": zeros.clone(),
        "sum": SQUARES.clone(),
    }
    return model, optimizer


def growth(build, lr):
    """By how much the point moves away in forty steps, after the first forty."""
    model, optimizer = start(build, lr)
    sizes = []
    for _ in range(80):
        optimizer.zero_grad()
        quadratic(model).backward()
        optimizer.step()
        sizes.append(model.weight.detach().abs().max().item())
    return sizes[-1] / sizes[39]


OPTIMIZERS = {
    "SGD": lambda p, lr: torch.optim.SGD(p, lr),
    "SGD, weight decay": lambda p, lr: torch.optim.SGD(p, lr, weight_decay=2.0),
    "momentum": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.8),
    "momentum, dampening": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.8, dampening=0.5, weight_decay=0.2),
    "Nesterov": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.8, nesterov=True),
    "Adam": lambda p, lr: torch.optim.Adam(p, lr, betas=(0.9, SLOW), eps=1e-3),
    "Adam, weight decay": lambda p, lr: torch.optim.Adam(p, lr, betas=(0.8, SLOW), eps=1e-3, weight_decay=0.5),
    "Adam, AMSGrad": lambda p, lr: torch.optim.Adam(p, lr, betas=(0.9, SLOW), amsgrad=True),
    "Adam, tensor LR": lambda p, lr: torch.optim.Adam(p, torch.tensor(lr), betas=(0.5, SLOW)),
    "AdamW": lambda p, lr: torch.optim.AdamW(p, lr, betas=(0.9, SLOW), eps=1e-3, weight_decay=0.5),
    "RMSprop": lambda p, lr: torch.optim.RMSprop(p, lr, alpha=SLOW, momentum=0.5),
    "RMSprop, centered": lambda p, lr: torch.optim.RMSprop(p, lr, alpha=SLOW, centered=True, weight_decay=0.1),
    "Adagrad": lambda p, lr: torch.optim.Adagrad(p, lr, weight_decay=0.3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_converges_just_below_the_limit_and_diverges_just_above(name):
    build = OPTIMIZERS[name]
    model, optimizer = start(build, 0.01)
    result = stability(model, quadratic, None, optimizer)
    assert result.lrs == pytest.approx((0.01,))
    assert result.share == pytest.approx(0.01 / result.limits[0])
    assert growth(build, 0.97 * result.limits[0]) < 1 < growth(build, 1.03 * result.limits[0])


def test_the_limit_of_adam_is_38_over_the_preconditioned_curvature():
    model, optimizer = start(lambda p, lr: torch.optim.Adam(p, lr, betas=(0.9, SLOW), eps=0.0), 0.01)
    stiffest = (CURVATURES / SQUARES.sqrt()).max().item()
    assert stability(model, quadratic, None, optimizer).limits[0] == pytest.approx(38 / stiffest)


def test_groups_keep_their_proportion_and_may_have_settings_of_their_own():
    """With momentum in one group only, the limit is still where the joint system stops converging."""
    matrix = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    points = [torch.nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2)]
    model = torch.nn.ParameterList(points)
    groups = [{"params": [points[0]], "lr": 0.1, "momentum": 0.9}, {"params": [points[1]], "lr": 0.3}]

    def loss(model, batch=None):
        x = torch.cat(list(model))
        return x @ matrix @ x / 2

    result = stability(model, loss, None, torch.optim.SGD(groups))
    assert result.limits[1] == pytest.approx(3 * result.limits[0])
    for part, converges in ((0.98, True), (1.02, False)):
        for point in points:
            torch.nn.init.ones_(point)
        optimizer = torch.optim.SGD([{**group, "lr": limit * part} for group, limit in zip(groups, result.limits)])
        for _ in range(500):
            optimizer.zero_grad()
            loss(model).backward()
            optimizer.step()
        assert (loss(model).item() < 1e-3) == converges


def test_where_everything_curves_downwards_there_is_no_limit():
    model, optimizer = start(OPTIMIZERS["SGD"], 0.1)
    result = stability(model, lambda model, batch: -quadratic(model), None, optimizer)
    assert result.limits == (math.inf,)
    assert result.share < 0


def test_a_parameter_that_never_had_a_gradient_does_not_count():
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.Adam([model.weight, model.bias], 0.1)
    model.weight.square().sum().backward()
    optimizer.step()
    before = stability(model, lambda model, batch: model.weight.square().sum(), None, optimizer)
    both = stability(model, lambda m, batch: m.weight.square().sum() + 1e6 * m.bias.square().sum(), None, optimizer)
    assert both.share == pytest.approx(before.share)


def test_what_it_does_not_know_it_says():
    model = torch.nn.Linear(1, 1)
    with pytest.raises(
        TypeError, match="optimizer must be one of torch's SGD, Adam, AdamW, RMSprop, Adagrad, got NAdam"
    ):
        stability(model, quadratic, None, torch.optim.NAdam(model.parameters()))
    with pytest.raises(ValueError, match="must minimize"):
        stability(model, quadratic, None, torch.optim.SGD(model.parameters(), 0.1, maximize=True))
    with pytest.raises(ValueError, match="must have made a step"):
        stability(model, quadratic, None, torch.optim.AdamW(model.parameters()))
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="a parameter that requires a gradient, got none"):
        stability(model, quadratic, None, torch.optim.SGD(model.parameters(), 0.1))
