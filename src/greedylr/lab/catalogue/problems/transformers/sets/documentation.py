"""Source code and its documentation, read from the files of packages that are installed."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from greedylr.lab.catalogue.problems import text
from greedylr.lab.catalogue.problems.problem import Data, DataError
from greedylr.lab.catalogue.problems.task import Examples
from greedylr.lab.catalogue.problems.transformers.sets.corpus import TRAIN, Corpus, apart, divide, spread
from greedylr.lab.catalogue.problems.transformers.tasks import (
    CLASSIFICATION,
    QUESTION_ANSWERING,
    generation,
    token_classification,
)
from greedylr.lab.catalogue.problems.transformers.tokens import (
    BETWEEN,
    END,
    IGNORED,
    LENGTH,
    PADDING,
    START,
    Tokenizer,
    inputs,
    labels,
)

SUBPACKAGES = (
    "fft",
    "integrate",
    "interpolate",
    "linalg",
    "ndimage",
    "optimize",
    "signal",
    "sparse",
    "spatial",
    "special",
    "stats",
)
"""Subpackages of SciPy: those with the most functions."""

FILES = (*text.TRAIN_FILES, "ast.py", "smtplib.py", "statistics.py")
"""Files of the standard library."""

_KINDS = ("O", "B-literal", "I-literal", "B-class", "I-class", "B-function", "I-function", "B-other", "I-other")
_ROLES = {"class": "class", "func": "function", "meth": "function"}


class Function(NamedTuple):
    """A documented function.

    Attributes:
        module: Where it is, as a path: ``("scipy", "fft", "_basic.py")``.
        name: Its name.
        documentation: Its docstring, without indentation.
        code: Its definition, without the docstring.
        signature: Its arguments, as they are written.
        defaults: The arguments that have a default, and that.
    """

    module: tuple[str, ...]
    name: str
    documentation: str
    code: str
    signature: str
    defaults: tuple[tuple[str, str], ...]


@cache
def functions() -> list[Function]:
    """Every documented public function, in the order of the files.

    Raises:
        DataError: If a package is not installed.
    """
    try:
        import numpy
        import scipy  # type: ignore[import-untyped]
        import sklearn  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise DataError(f"the package {error.name} is not installed: pip install 'greedylr[lab]'") from error
    return [function for package in (numpy, scipy, sklearn) for function in _of_package(package)]


def _of_package(package: ModuleType) -> Iterator[Function]:
    root = Path(package.__path__[0])
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).parts
        if not {"tests", "_lib", "externals"} & set(parts):
            yield from _defined(file.read_text(encoding="utf-8"), (package.__name__, *parts))


def _defined(source: str, module: tuple[str, ...]) -> Iterator[Function]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        documentation = ast.get_docstring(node)
        if not documentation:
            continue
        node.body = node.body[1:] or [ast.Pass()]
        node.decorator_list = []
        arguments = node.args.args[len(node.args.args) - len(node.args.defaults) :]
        defaults = tuple((one.arg, ast.unparse(value)) for one, value in zip(arguments, node.args.defaults))
        yield Function(module, node.name, documentation, ast.unparse(node), ast.unparse(node.args), defaults)


def _learnt(texts: Sequence[str]) -> Tokenizer:
    """Learn byte pairs from at most so many: the byte pairs of more are hardly others."""
    return Tokenizer.of(spread(texts, TRAIN))


Pairs = tuple[list[tuple[str, str]], list[tuple[str, str]]]


class _Writing:
    """A text for each text, in one vocabulary."""

    def __init__(self, pairs: Callable[[], Pairs], target: int) -> None:
        self.pairs, self.target = cache(pairs), target
        self.tokenizer = cache(lambda: _learnt([text for pair in self.pairs()[0] for text in pair]))

    def load(self) -> Data:
        tokenizer = self.tokenizer()
        return apart(
            *(
                Examples(
                    inputs(tokenizer.numbers(text[:1000]) for text, _ in part),
                    labels((tokenizer.numbers(text) for _, text in part), self.target),
                )
                for part in self.pairs()
            )
        )

    def read(self, rows: Tensor) -> list[str]:
        return self.tokenizer().texts(rows)


def _summaries() -> Pairs:
    """Pairs of a docstring without its first line, and that line."""
    split = (function.documentation.partition("\n\n") for function in functions())
    pairs = {" ".join(rest.split()): " ".join(first.split()) for first, _, rest in split if len(rest) > 60}
    return divide(((rest, first) for rest, first in pairs.items() if 10 <= len(first) <= 120), lambda pair: pair[0])


def _names() -> Pairs:
    """A function without its name, and that."""
    pairs = {
        function.code.replace(function.name, "function"): function.name.replace("_", " ")
        for function in functions()
        if len(function.code) > 80
    }
    return divide(pairs.items(), lambda pair: pair[0])


def _classified(read: Callable[[], list[tuple[str, int]]]) -> Data:
    parts = divide(read(), lambda one: one[0])
    tokenizer = _learnt([text for text, _ in parts[0]])
    return apart(
        *(
            Examples(
                inputs(tokenizer.numbers(text[:1000]) for text, _ in part),
                torch.tensor([number for _, number in part]),
            )
            for part in parts
        )
    )


def docstrings() -> list[tuple[str, int]]:
    """The first paragraphs of docstrings of SciPy, and the number of the subpackage."""
    found = [one for one in functions() if one.module[0] == "scipy" and one.module[1] in SUBPACKAGES]
    return [(one.documentation[:300], SUBPACKAGES.index(one.module[1])) for one in found]


def snippets() -> list[tuple[str, int]]:
    """Six lines of source code of the standard library, and the number of the file."""
    found = []
    for number, name in enumerate(FILES):
        lines = text.read_source([name]).decode().splitlines()
        found += [("\n".join(lines[place : place + 6]).strip(), number) for place in range(0, len(lines) - 6, 6)]
    return [one for one in found if len(one[0]) > 40]


class Answer(NamedTuple):
    """A question, where the answer is to be found, and where in there it is, in characters."""

    question: str
    context: str
    first: int
    last: int


def _answered(answers: Sequence[Answer]) -> Data:
    """Question and context as one input; those whose answer is cut off are left out."""
    parts = divide(answers, lambda one: (one.question, one.context))
    tokenizer = _learnt([one.context for one in parts[0]])

    def examples(part: list[Answer]) -> Examples:
        rows, spans = [], []
        for one in part:
            question = [START, *tokenizer.numbers(one.question), BETWEEN]
            row = [*question, *tokenizer.numbers(one.context), END]
            places = tokenizer.places(one.context)
            inside = [
                len(question) + number
                for number, (first, last) in enumerate(places)
                if first < one.last and last > one.first
            ]
            if inside and inside[-1] < LENGTH:
                rows.append([*row[:LENGTH], *[PADDING] * (LENGTH - len(row))])
                spans.append([inside[0], inside[-1]])
        return Examples(torch.tensor(rows), torch.tensor(spans))

    return apart(*map(examples, parts))


def _types() -> Data:
    """Type of a parameter, in a list of parameters and their types."""
    answers = []
    for function in functions():
        _, heading, section = function.documentation.partition("Parameters\n----------\n")
        listed = re.findall(r"^(\w+) : (.+)$", section.partition("\n\n")[0], re.MULTILINE) if heading else []
        context = "\n".join(f"{name} : {kind}" for name, kind in listed)
        if len(listed) < 2:
            continue
        name, kind = listed[len(function.name) % len(listed)]
        first = context.index(f"{name} : {kind}") + len(name) + 3
        answers.append(Answer(name, context, first, first + len(kind)))
    return _answered(list(dict.fromkeys(answers)))


def _defaults() -> Data:
    """Default of an argument, in the arguments of a function."""
    answers = []
    for function in functions():
        if len(function.defaults) < 2:
            continue
        name, value = function.defaults[len(function.name) % len(function.defaults)]
        found = re.search(rf"\b{name}(: [^=]*?)?\s?=\s?{re.escape(value)}", function.signature)
        if found is not None:
            answers.append(Answer(name, function.signature, found.end() - len(value), found.end()))
    return _answered(list(dict.fromkeys(answers)))


_MARKED = re.compile(r"``([^`]+)``|:(\w+):`~?\.?([^`<]+)`")


def _marked() -> Data:
    """Sentences of documentation without their markup; the target says what was marked, and as what."""
    sentences: dict[str, list[tuple[int, int, str]]] = {}
    for function in functions():
        for raw in re.split(r"(?<=\.)\s+|\n\n", function.documentation):
            plain, marks, before = "", [], 0
            for found in _MARKED.finditer(raw):
                plain += raw[before : found.start()]
                text = found.group(1) or found.group(3)
                kind = "literal" if found.group(1) else _ROLES.get(found.group(2), "other")
                marks.append((len(plain), len(plain) + len(text), kind))
                plain, before = plain + text, found.end()
            plain += raw[before:]
            if marks and 30 <= len(plain) <= 300:
                sentences.setdefault(plain, marks)
    parts = divide(sentences.items(), lambda one: one[0])
    tokenizer = _learnt([sentence for sentence, _ in parts[0]])

    def kinds(sentence: str, marks: list[tuple[int, int, str]]) -> list[int]:
        row = []
        begun = -1
        for first, last in tokenizer.places(sentence):
            inside = next((mark for mark in marks if first < mark[1] and last > mark[0]), None)
            if inside is None:
                row.append(0)
                continue
            row.append(_KINDS.index(f"{'I' if begun == inside[0] else 'B'}-{inside[2]}"))
            begun = inside[0]
        return row

    def examples(part: list[tuple[str, list[tuple[int, int, str]]]]) -> Examples:
        rows = [kinds(*one)[: LENGTH - 2] for one in part]
        targets = [[IGNORED, *row, *[IGNORED] * (LENGTH - 1 - len(row))] for row in rows]
        return Examples(inputs(tokenizer.numbers(sentence) for sentence, _ in part), torch.tensor(targets))

    return apart(*map(examples, parts))


_SUMMARIES = _Writing(_summaries, LENGTH // 2)
_NAMES = _Writing(_names, 16)
_OF_PACKAGES = "NumPy, SciPy and scikit-learn as they are installed (BSD)"

CORPORA = (
    Corpus(
        name="summaries",
        title="Docstring to its first line",
        source=_OF_PACKAGES,
        kind="summarization",
        task=generation(_SUMMARIES.read),
        load=_SUMMARIES.load,
    ),
    Corpus(
        name="names",
        title="Function to its name",
        source=_OF_PACKAGES,
        kind="summarization",
        task=generation(_NAMES.read),
        load=_NAMES.load,
    ),
    Corpus(
        name="subpackages",
        title="Subpackage of SciPy by a docstring",
        source="SciPy as it is installed (BSD)",
        kind="text-classification",
        task=CLASSIFICATION,
        load=partial(_classified, docstrings),
        classes=len(SUBPACKAGES),
    ),
    Corpus(
        name="modules",
        title="Source file by six lines of it",
        source="the standard library of Python (PSF licence)",
        kind="text-classification",
        task=CLASSIFICATION,
        load=partial(_classified, snippets),
        classes=len(FILES),
    ),
    Corpus(
        name="types",
        title="Type of a parameter, in the list of them",
        source=_OF_PACKAGES,
        kind="question-answering",
        task=QUESTION_ANSWERING,
        load=_types,
    ),
    Corpus(
        name="defaults",
        title="Default of an argument, in a signature",
        source=_OF_PACKAGES,
        kind="question-answering",
        task=QUESTION_ANSWERING,
        load=_defaults,
    ),
    Corpus(
        name="marked",
        title="What documentation marks as code",
        source=_OF_PACKAGES,
        kind="token-classification",
        task=token_classification(_KINDS),
        load=_marked,
        classes=len(_KINDS),
    ),
)
