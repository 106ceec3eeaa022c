"""Questions in English over small tables, and the SQL that answers them; what counts is what SQLite returns."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from greedylr.language_models.data.examples import Examples, Row, divide

_ROWS = 24


class Table(NamedTuple):
    """A table.

    Attributes:
        name: What its rows are.
        words: Columns of words, and the words in each.
        numbers: Columns of whole numbers, and the largest in each.
    """

    name: str
    words: dict[str, tuple[str, ...]]
    numbers: dict[str, int]


TABLES = (
    Table(
        "staff",
        {"city": ("Paris", "Oslo", "Rome", "Lima"), "team": ("sales", "legal", "design")},
        {"age": 65, "salary": 90000},
    ),
    Table(
        "books",
        {"genre": ("novel", "poetry", "history"), "language": ("French", "Greek", "Dutch")},
        {"pages": 900, "year": 2020},
    ),
    Table(
        "ships",
        {"flag": ("Norway", "Panama", "Malta"), "kind": ("tanker", "ferry", "tug")},
        {"length": 400, "crew": 60},
    ),
    Table(
        "trees",
        {"species": ("oak", "beech", "pine", "birch"), "park": ("north", "south", "river")},
        {"height": 40, "girth": 500},
    ),
    Table(
        "matches",
        {"home": ("Ajax", "Porto", "Celtic"), "ground": ("arena", "bowl", "field")},
        {"goals": 9, "crowd": 60000},
    ),
    Table(
        "flights",
        {"airline": ("Azul", "Finnair", "Qantas"), "airport": ("Lyon", "Turin", "Bergen")},
        {"delay": 180, "seats": 400},
    ),
    Table(
        "dishes",
        {"course": ("starter", "main", "dessert"), "cuisine": ("Thai", "Greek", "Peruvian")},
        {"price": 60, "calories": 1500},
    ),
    Table(
        "films",
        {"country": ("Japan", "Chile", "Iran"), "style": ("drama", "comedy", "western")},
        {"minutes": 200, "votes": 5000},
    ),
)
"""The tables that are asked about."""


def load() -> Examples:
    """Questions over all tables, in a fixed order; each answer returns something, and is executed to make sure."""
    rows = [row for table in TABLES for row in _questions(table)]
    unique = list({row["prompt"]: row for row in rows}.values())
    random.Random(0).shuffle(unique)
    return Examples(*divide(unique), score=score, measure="queries that return the right rows")


def score(answers: Sequence[str], rows: Sequence[Row]) -> float:
    """Share of the answers that return what the right query returns."""
    right = sum(_same(answer, row) for answer, row in zip(answers, rows, strict=True))
    return right / len(rows)


def returned(query: str) -> list[tuple[object, ...]] | None:
    """The rows that a query returns; None if it is not one, writes, or takes too long."""
    connection = _database()
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return steps > 100  # Of a thousand instructions each: a query of ours takes one.

    connection.set_progress_handler(count, 1000)
    try:
        return connection.execute(query).fetchall()
    except (sqlite3.Error, sqlite3.Warning, ValueError):
        return None
    finally:
        connection.set_progress_handler(None, 0)


def _same(answer: str, row: Row) -> bool:
    wanted, given = returned(row["completion"]), returned(answer.strip().split("\n")[0].rstrip(";") or "-")
    if given is None or wanted is None:
        return False
    ordered = " ORDER BY " in row["completion"]
    return given == wanted if ordered else sorted(map(repr, given)) == sorted(map(repr, wanted))


@cache
def _database() -> sqlite3.Connection:
    """All tables, with rows that are always the same; nobody can write to it."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    for table in TABLES:
        drawn = random.Random(table.name)
        connection.execute(f"CREATE TABLE {table.name} (name, {', '.join([*table.words, *table.numbers])})")
        for number in range(_ROWS):
            row: list[object] = [f"{table.name[:-1]} {number}"]
            row += [drawn.choice(words) for words in table.words.values()]
            row += [drawn.randrange(largest // 4, largest) for largest in table.numbers.values()]
            connection.execute(f"INSERT INTO {table.name} VALUES ({', '.join('?' * len(row))})", row)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _questions(table: Table) -> Iterator[Row]:
    name = table.name
    for number, largest in table.numbers.items():
        for value in range(largest // 4, largest, max(1, largest // 20)):
            yield _row(
                table,
                f"How many {name} have more than {value} {number}?",
                f"SELECT COUNT(*) FROM {name} WHERE {number} > {value}",
            )
            yield _row(
                table,
                f"Which {name} have less than {value} {number}?",
                f"SELECT name FROM {name} WHERE {number} < {value}",
            )
        for top in range(1, 6):
            yield _row(
                table,
                f"Which {top} {name} have the most {number}?",
                f"SELECT name FROM {name} ORDER BY {number} DESC LIMIT {top}",
            )
        for column, words in table.words.items():
            yield _row(
                table,
                f"What is the mean {number} for each {column} of {name}?",
                f"SELECT {column}, AVG({number}) FROM {name} GROUP BY {column}",
            )
            for word in words:
                yield _row(
                    table,
                    f"What is the largest {number} of {name} whose {column} is {word}?",
                    f"SELECT MAX({number}) FROM {name} WHERE {column} = '{word}'",
                )
                yield _row(
                    table,
                    f"What is the total {number} of {name} whose {column} is {word}?",
                    f"SELECT SUM({number}) FROM {name} WHERE {column} = '{word}'",
                )
                for value in range(largest // 4, largest, max(1, largest // 8)):
                    yield _row(
                        table,
                        f"How many {name} whose {column} is {word} have more than {value} {number}?",
                        f"SELECT COUNT(*) FROM {name} WHERE {column} = '{word}' AND {number} > {value}",
                    )
    for column, words in table.words.items():
        yield _row(
            table,
            f"How many {name} are there for each {column}?",
            f"SELECT {column}, COUNT(*) FROM {name} GROUP BY {column}",
        )
        for word in words:
            yield _row(
                table,
                f"List the {name} whose {column} is {word}.",
                f"SELECT name FROM {name} WHERE {column} = '{word}'",
            )


def _row(table: Table, question: str, query: str) -> Row:
    columns = ", ".join(["name", *table.words, *table.numbers])
    return {"prompt": f"Table {table.name}({columns})\n{question}\nSQL:", "completion": f" {query}"}
