"""What holds for every test: Hypothesis is deterministic, slow tests wait to be asked for, CUDA tests need CUDA."""

import pytest
from hypothesis import settings

settings.register_profile("greedylr", derandomize=True, deadline=None)
settings.load_profile("greedylr")


def pytest_collection_modifyitems(config, items):
    if not config.option.markexpr:
        slow = [item for item in items if "slow" in item.keywords]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if "slow" not in item.keywords]
    on_cuda = [item for item in items if "cuda" in item.keywords]
    if on_cuda and not _has_cuda():
        for item in on_cuda:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _has_cuda():
    import torch

    return torch.cuda.is_available()
