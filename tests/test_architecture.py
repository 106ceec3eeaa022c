"""Imports point downwards only, and the rule alone does not drag PyTorch in."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import greedylr

ROOT = Path(greedylr.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

# What each part may import of the others. The face, `greedylr` itself, may be imported from anywhere but control.
BELOW = {
    "control": set(),
    "torch": {"control", "extras"},
    "presentation": {"extras"},
    "extras": set(),
    "pulse": {"control", "presentation", "extras"},
    "theory": {"control", "extras"},
    "adapters": {"control", "torch", "pulse", "extras"},
    "lab": {"control", "torch", "pulse", "adapters", "presentation", "extras"},
    "language_models": {"adapters", "lab", "extras"},
    "cli": {"control", "torch", "pulse", "theory", "adapters", "lab", "language_models", "presentation"},
    "__main__": {"cli"},
    "": {"control", "torch"},
}

# The same within a part: what each wing may import of the others.
WINGS = {
    "lab": {
        "runs": set(),
        "results": {"runs"},
        "catalogue": {"runs"},
        "execution": {"runs", "results", "catalogue"},
        "analysis": {"runs", "results", "catalogue"},
        "report": {"runs", "results", "catalogue", "execution", "analysis"},
        "comparison": {"runs", "results", "catalogue", "execution", "analysis", "report"},
        "": {"comparison"},
    },
    "language_models": {
        "data": set(),
        "models": {"recipes"},  # tiny is made by a recipe, when it is asked for
        "recipes": {"data", "models"},
        "": set(),
    },
    "pulse": {
        "record": set(),
        "recording": {"record"},
        "trace": {"record", "recording"},
        "diagnosis": {"record", "recording", "trace"},
        "report": {"record", "recording", "trace", "diagnosis"},
        "sinks": {"recording", "trace"},
        "": {"recording", "trace"},
    },
}


def part_of(path):
    relative = path.relative_to(ROOT)
    name = relative.parts[0].removesuffix(".py")
    return "" if name == "__init__" else name


def imported(path):
    """Every module that a file imports, also inside functions, by its full name."""
    package = ("greedylr", *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            # `from greedylr import control` names a part, `from greedylr import GreedyLR` the face.
            yield from (f"{module}.{alias.name}" for alias in node.names) if module == "greedylr" else (module,)


def own_part(module):
    """Which part of greedylr a module belongs to; None for other packages."""
    names = module.split(".")
    if names[0] != "greedylr":
        return None
    return names[1] if len(names) > 1 and names[1] in BELOW else ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path):
    part = part_of(path)
    assert part in BELOW, f"{path.name} is in no known part; say in this test what it may import"
    allowed = BELOW[part] | {part} | (set() if part == "control" else {""})
    for module in imported(path):
        if own_part(module) is not None:
            assert own_part(module) in allowed, f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("part", WINGS)
def test_wings_import_downwards(part):
    wings = WINGS[part]
    for path in sorted((ROOT / part).rglob("*.py")):
        wing = path.relative_to(ROOT / part).parts[0].removesuffix(".py").replace("__init__", "")
        assert wing in wings, f"{path.relative_to(ROOT)} is in no known wing; say in this test what it may import"
        for module in imported(path):
            names = module.split(".")
            if names[:2] == ["greedylr", part]:
                other = names[2] if len(names) > 2 else ""
                assert other in wings[wing] | {wing}, f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "control").rglob("*.py")), ids=lambda path: path.name)
def test_the_rule_needs_the_standard_library_only(path):
    foreign = {module.split(".")[0] for module in imported(path)} - {"greedylr"} - sys.stdlib_module_names
    assert not foreign


def test_this_test_sees_imports(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "control" / "bad.py"
    path.parent.mkdir()
    path.write_text(
        "def f():\n    from ..torch import scheduler\n    from greedylr import lab\n    import numpy.linalg\n"
    )
    assert list(imported(path)) == ["greedylr.torch", "greedylr.lab", "numpy.linalg"]
    assert [own_part(module) for module in imported(path)] == ["torch", "lab", None]


def in_a_fresh_process(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("module", ["greedylr", "greedylr.control.rule", "greedylr.control.batched"])
def test_the_rule_imports_no_framework(module):
    heavy = "{'torch', 'numpy', 'scipy', 'transformers', 'rich', 'typer'} & set(sys.modules)"
    assert in_a_fresh_process(f"import {module}, sys; print({heavy})") == "set()"


def test_the_face_brings_torch_with_the_scheduler():
    code = "import sys, greedylr; greedylr.Action; print('torch' in sys.modules, end=' '); "
    assert in_a_fresh_process(code + "greedylr.GreedyLR; print('torch' in sys.modules)") == "False True"


def test_the_face_holds_what_it_names():
    assert all(hasattr(greedylr, name) for name in greedylr.__all__)
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = greedylr.nothing_of_that_name


LACKING = [
    ("adapters.trainer", "transformers", "trainer"),
    ("adapters.trl", "trl", "trl"),
    ("adapters.accelerate", "accelerate", "accelerate"),
    ("adapters.lightning", "lightning", "lightning"),
    ("adapters.keras", "keras", "keras"),
    ("adapters.optax", "jax", "optax"),
    ("adapters.optax", "optax", "optax"),
    ("pulse.trace", "numpy", "pulse"),
    ("pulse.sinks", "numpy", "pulse"),
    ("pulse.diagnosis.health", "scipy", "pulse"),
    ("pulse.report", "plotly", "pulse"),
    ("lab", "sklearn", "lab"),
    ("lab.execution.store", "numpy", "lab"),
    ("language_models", "peft", "lm"),
]
"""Module, a package that it needs, and the extra that brings it."""


@pytest.fixture(scope="module")
def said_without():
    """Last words of processes that import a module and lack a package, by module and package.

    They are forked from one that has imported torch, which would take each of them most of its time.
    """
    code = f"""
import os, sys, torch
for module, package, _ in {LACKING!r}:
    sys.stdout.flush()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        continue
    sys.modules[package] = None
    try:
        __import__("greedylr." + module)
    except ModuleNotFoundError as error:
        print(module, package, error.name, error, sep="|")
    sys.stdout.flush()
    os._exit(0)
"""
    lines = [line.split("|") for line in in_a_fresh_process(code).splitlines()]
    return {(module, package): (name, said) for module, package, name, said in lines}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize(("module", "package", "extra"), LACKING)
def test_an_import_without_its_extra_says_which(said_without, module, package, extra):
    name, said = said_without[module, package]
    assert f"pip install 'greedylr[{extra}]'" in said
    assert name.split(".")[0] == package
