"""The registry of optimizers: what each is, and that fused means the same."""

import pytest
import torch

from greedylr.lab.catalogue.optimizers import OPTIMIZERS


def trained(entry, **options):
    parameter = torch.nn.Parameter(torch.linspace(-1, 1, 12, dtype=torch.float64).view(3, 4))
    optimizer = entry.build([parameter], 0.05, **options)
    for _ in range(20):
        optimizer.zero_grad()
        (parameter - 0.3).pow(4).sum().backward()
        optimizer.step()
    return parameter.detach()


def test_names_are_those_of_the_problems_learning_rates():
    assert list(OPTIMIZERS) == ["sgd", "adam", "adamw", "adagrad", "adafactor"]
    assert all(entry.name == name for name, entry in OPTIMIZERS.items())


@pytest.mark.parametrize("entry", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_fused_is_the_same_but_for_rounding(entry):
    torch.testing.assert_close(trained(entry, fused=True), trained(entry), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("entry", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_elementwise_means_that_the_update_is_the_learning_rate_times_something(entry):
    moves = []
    for lr in (1.0, 0.25):
        parameter = torch.zeros(3, 4, dtype=torch.float64)
        optimizer = entry.build([parameter], lr)
        for step in range(3):
            parameter.grad = torch.arange(12, dtype=torch.float64).view(3, 4) - step
            optimizer.step()
            moves.append(parameter / lr)
            parameter.zero_()
    proportional = all(torch.allclose(moves[i], moves[i + 3], rtol=1e-12) for i in range(3))
    assert proportional or not entry.elementwise


def test_only_adamw_decays_weights():
    built = {name: entry.build([torch.zeros(1)], 0.1) for name, entry in OPTIMIZERS.items()}
    decays = {name: optimizer.param_groups[0]["weight_decay"] for name, optimizer in built.items()}
    assert decays.pop("adamw") == 0.01
    assert not any(decays.values())


def test_sgd_has_momentum():
    assert OPTIMIZERS["sgd"].build([torch.zeros(1)], 0.1).param_groups[0]["momentum"] == 0.9
