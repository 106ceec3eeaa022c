"""Docstrings open with a noun phrase or an imperative, not like a question or in the middle of a sentence."""

import ast
from pathlib import Path

import pytest

import greedylr

ROOT = Path(greedylr.__file__).parent
QUESTIONS = {"What", "How", "Which", "Whether", "Where", "Who", "Whoever", "Whose", "When", "Why", "Whatever"}
HALVES = {"Of", "Those", "By", "From", "In", "With", "At", "To", "On", "For", "As"}  # of sentences


def openings(path):
    """First word and line of every docstring: of modules, classes and functions, and of what is assigned before one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        body = getattr(node, "body", ())
        for one in body if isinstance(body, list) else ():  # That of a lambda is one expression.
            if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) and isinstance(one.value.value, str):
                documentation = one.value.value.strip()
                yield documentation.split(maxsplit=1)[0].strip(",:;."), documentation.partition("\n")[0]


@pytest.mark.parametrize("folder", sorted({path.parent for path in ROOT.rglob("*.py")}), ids=lambda path: path.name)
def test_no_docstring_opens_like_a_question(folder):
    questions = [line for path in folder.glob("*.py") for word, line in openings(path) if word in QUESTIONS | HALVES]
    assert not questions
