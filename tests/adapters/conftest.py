"""What the adapters' tests share: the rule replayed, real data, fresh processes."""

import inspect
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from greedylr.control import rule

collect_ignore = ["keras_models.py"]  # a script


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """Tiny models: threads that wait for one another would cost more than they compute."""


@pytest.fixture(scope="session")
def replay():
    """The learning rates that the scalar rule gives for these losses, before each and after the last."""

    def replayed(config, losses, initial_lrs):
        state = rule.start(config, initial_lrs)
        return [state.lrs, *(rule.observe(config, state, loss).lr_after for loss in losses)]

    return replayed


@pytest.fixture(scope="session")
def text():
    """Source text of the standard library, as character codes."""
    import argparse

    return torch.tensor([min(ord(character), 127) for character in inspect.getsource(argparse)])


@pytest.fixture(scope="session")
def digits():
    """Handwritten digits: pixels in [0, 1], and what they show."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images / 16.0, dtype=torch.float32), torch.tensor(labels)


@pytest.fixture
def processes(tmp_path):
    """Run a script in so many fresh processes, as ranks of one another where there are several; what each printed."""

    def run(script, *arguments, world=1, timeout=240):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(script))
        ranks = []
        for rank in range(world):
            env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
            if world > 1:
                env |= {
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(world),
                    "MASTER_ADDR": "127.0.0.1",
                }
                env |= {"LOCAL_WORLD_SIZE": str(world), "MASTER_PORT": str(port)}
            command = [sys.executable, str(path), *map(str, arguments)]
            pipe = subprocess.PIPE
            ranks.append(subprocess.Popen(command, env=env, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True))
        try:
            said = [rank.communicate(timeout=timeout) for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
        assert [rank.returncode for rank in ranks] == [0] * world, "\n".join(error[-3000:] for _, error in said)
        return [out for out, _ in said]

    port = _free_port()
    return run


def _free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
