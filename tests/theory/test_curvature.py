"""The largest curvature: where it is known, where a bound is known, and against the full Hessian."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from greedylr.theory import sharpness


@pytest.fixture(autouse=True)
def _seeded(one_thread):
    torch.manual_seed(0)


def squares(model, batch):
    inputs, targets = batch
    return (model(inputs) - targets).square().mean() / 2


def cross_entropy(model, batch):
    inputs, labels = batch
    return functional.cross_entropy(model(inputs), labels)


class Point(torch.nn.Module):
    def __init__(self, size, dtype=torch.float64):
        super().__init__()
        self.x = torch.nn.Parameter(torch.randn(size, dtype=dtype))


def quadratic(model, matrix):
    return model.x @ matrix @ model.x / 2


@pytest.mark.parametrize("size", [1, 5, 200])
def test_of_a_quadratic_it_is_the_largest_eigenvalue_not_the_one_of_largest_magnitude(size):
    root = torch.randn(size, size, dtype=torch.float64)
    matrix = root + root.T - 3 * size * torch.ones(size, size) / size  # One eigenvalue is far below zero.
    expected = torch.linalg.eigvalsh(matrix)[-1].item()
    result = sharpness(Point(size), quadratic, matrix, tolerance=1e-8)
    assert result.value == pytest.approx(expected, rel=1e-6)
    assert result.largest == result.value
    assert result.error < 1e-4 * size


@pytest.mark.parametrize("examples", [2, 30])
def test_of_several_batches_that_of_the_mean_and_the_largest(examples):
    matrices = torch.randn(examples, 40, 40, dtype=torch.float64)
    matrices = matrices @ matrices.mT
    result = sharpness(Point(40), quadratic, *matrices, tolerance=1e-8)
    assert result.value == pytest.approx(torch.linalg.eigvalsh(matrices.mean(0))[-1].item(), rel=1e-6)
    assert result.largest == pytest.approx(torch.linalg.eigvalsh(matrices)[:, -1].max().item(), rel=1e-6)
    assert result.value < result.largest


def test_of_logistic_regression_it_keeps_to_the_known_bound_and_meets_it_at_zero():
    inputs, labels = torch.randn(60, 25), torch.randint(2, (60,)).float()
    bound = torch.linalg.eigvalsh(inputs.T @ inputs)[-1].item() / (4 * 60)
    model = torch.nn.Linear(25, 1, bias=False)

    def loss(model, batch):
        return functional.binary_cross_entropy_with_logits(model(batch[0])[:, 0], batch[1])

    assert 0 < sharpness(model, loss, (inputs, labels)).value < bound
    torch.nn.init.zeros_(model.weight)
    assert sharpness(model, loss, (inputs, labels)).value == pytest.approx(bound, rel=1e-4)


def test_of_a_network_it_is_that_of_the_full_hessian():
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
    batch = torch.randn(20, 6, dtype=torch.float64), torch.randint(3, (20,))
    names, values = zip(*model.named_parameters())

    def of_flat(flat):
        parts = torch.split(flat, [value.numel() for value in values])
        shaped = {name: part.view_as(value) for name, part, value in zip(names, parts, values)}
        return functional.cross_entropy(torch.func.functional_call(model, shaped, batch[0]), batch[1])

    full = torch.autograd.functional.hessian(of_flat, torch.cat([value.detach().flatten() for value in values]))
    result = sharpness(model, cross_entropy, batch, tolerance=1e-6)
    assert result.value == pytest.approx(torch.linalg.eigvalsh(full)[-1].item(), rel=1e-5)
    assert result.products > 10


def test_frozen_parameters_are_constants():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 1, bias=False))
    batch = torch.randn(10, 4), torch.randn(10, 1)
    model[0].requires_grad_(False)
    hidden = model[0](batch[0])
    expected = torch.linalg.eigvalsh(hidden.T @ hidden)[-1].item() / 10
    assert sharpness(model, squares, batch).value == pytest.approx(expected, rel=1e-4)


class Everything(torch.nn.Module):
    """Dropout, running statistics, attention and a recurrent layer; one parameter is not used."""

    def __init__(self):
        super().__init__()
        self.norm, self.dropout = torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5)
        self.recurrent = torch.nn.GRU(8, 8, batch_first=True)
        self.head, self.unused = torch.nn.Linear(8, 2), torch.nn.Parameter(torch.zeros(3))

    def forward(self, x):
        x = self.dropout(self.norm(x))[:, None].expand(-1, 5, -1)
        x = self.recurrent(x)[0]
        return self.head(functional.scaled_dot_product_attention(x, x, x).mean(1))


def test_the_model_is_left_as_it_was():
    model = Everything()
    batch = torch.randn(16, 8), torch.randint(2, (16,))
    cross_entropy(model, batch).backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()]
    state = torch.get_rng_state()
    one, two = (sharpness(model, cross_entropy, batch) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert one == two
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    for parameter, gradient in zip(model.parameters(), gradients):
        assert (parameter.grad is None) if gradient is None else torch.equal(parameter.grad, gradient)
    assert model.training
    with torch.no_grad():
        assert sharpness(model, cross_entropy, batch) == one
    model.eval()
    assert sharpness(model, cross_entropy, batch).value != one.value


def test_of_a_linear_loss_it_is_zero():
    assert sharpness(Point(30), lambda model, batch: model.x.sum(), None).value == 0


def test_it_says_when_it_was_not_found():
    spectrum = torch.linspace(0.999, 1, 500, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"not found to a relative error of 1e-12 in \d+ products: allow more"):
        sharpness(Point(500), lambda model, d: (d * model.x**2).sum(), spectrum, tolerance=1e-12, most_products=20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batches": ()}, "at least one batch, got none"),
        ({"model": torch.nn.Tanh()}, "parameters that require gradients, got none"),
        ({"loss_fn": lambda model, batch: model(batch[0])}, "loss_fn must return a scalar tensor"),
        ({"loss_fn": lambda model, batch: model(batch[0]).sum() * torch.nan}, "the loss must be finite, got nan"),
        ({"tolerance": -1.0}, "tolerance must be a number with 0 <= tolerance < inf, got -1.0"),
        ({"most_products": 0}, "most_products must be an integer of at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {"model": torch.nn.Linear(3, 2), "loss_fn": squares, "batches": [(torch.ones(4, 3), torch.zeros(4, 2))]}
    arguments |= change
    model, loss_fn, batches = (arguments.pop(name) for name in ("model", "loss_fn", "batches"))
    with pytest.raises(ValueError, match=message):
        sharpness(model, loss_fn, *batches, **arguments)


def test_the_error_bounds_the_distance_to_an_eigenvalue():
    matrix = torch.diag(torch.linspace(0, 1, 300, dtype=torch.float64) ** 4)
    result = sharpness(Point(300), quadratic, matrix, tolerance=0.3)
    assert np.abs(torch.diag(matrix).numpy() - result.value).min() <= result.error
    assert result.error > 1e-8
