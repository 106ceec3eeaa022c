"""For the examples in the README, the docs and the docstrings: what they write goes to a folder of its own.

No test and no example downloads anything, and Keras runs on PyTorch unless told otherwise.
"""

import os
from importlib.util import find_spec

import pytest
from _pytest.doctest import DoctestItem

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
os.environ.setdefault("KERAS_BACKEND", "torch")

# An adapter can be imported, and its example run, only where its library is: `pip install -e '.[test]'` has them all.
_libraries = {
    "trainer": "accelerate",
    "trl": "trl",
    "accelerate": "accelerate",
    "lightning": "lightning",
    "keras": "keras",
    "optax": "optax",
}
_missing = [adapter for adapter, library in _libraries.items() if find_spec(library) is None]
collect_ignore = [f"src/greedylr/adapters/{adapter}.py" for adapter in _missing]
if _missing or find_spec("ignite") is None:
    collect_ignore.append("docs/adapters.md")
collect_ignore += ["docs/conf.py", "docs/_build"]  # The site is built by .ci/docs.


@pytest.fixture(autouse=True)
def _examples_write_elsewhere(request, tmp_path, monkeypatch):
    if isinstance(request.node, DoctestItem):
        monkeypatch.chdir(tmp_path)


def pytest_collection_modifyitems(items):
    # The libraries in these examples warn of one another, and of what a tiny model on a CPU lacks.
    for item in items:
        if item.path.name == "adapters.md":
            for category in ("FutureWarning", "DeprecationWarning", "UserWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{category}"))
