"""Every path that CONTRIBUTING.md names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_path_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    paths = re.findall(r"`([\w/]+(?:/|\.py))`", table)
    assert len(paths) > 10
    for path in paths:
        # A name alone stands beside the one before.
        assert list((ROOT / "src" / "greedylr").rglob(path)) or (ROOT / "src" / "greedylr" / path).exists(), path
    tree = re.findall(r"^  ([a-z_]+)/", text, re.MULTILINE)
    assert set(tree) == {
        folder.name for folder in (ROOT / "src" / "greedylr").iterdir() if (folder / "__init__.py").exists()
    }
