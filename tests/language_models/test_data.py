"""Sets of examples and texts: deterministic, divided without overlap, and refused with a reason."""

import json
import re

import pytest

from greedylr.language_models.data import SETS, DataError, find, find_texts, sql
from greedylr.language_models.data.examples import BLOCK, VALIDATION


def there(name):
    try:
        return find(name)
    except DataError as error:
        if "Debian package" in str(error):
            pytest.skip(str(error))
        raise


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_the_same_at_every_call_and_validates_on_what_is_not_trained_on(name):
    one, other = there(name), there(name)
    assert one.train == other.train
    assert one.digest() == other.digest()
    assert len(one.train) >= 400
    assert 20 <= len(one.validation) <= VALIDATION
    assert not {row["prompt"] for row in one.train} & {row["prompt"] for row in one.validation}
    assert all(row["prompt"].strip() and row["completion"].strip() for row in [*one.train, *one.validation])


def test_every_query_returns_something_and_is_the_right_answer_to_itself():
    examples = find("sql")
    answers = [row["completion"] for row in examples.validation]
    assert examples.score(answers, examples.validation) == 1.0
    for row in [*examples.train, *examples.validation]:
        returned = sql.returned(row["completion"])
        assert returned is not None, row
    # Of another table, of the right one with another number, of nothing.
    wrong = [re.sub(r"FROM \w+", "FROM staff", answer.replace("COUNT(*)", "COUNT(*) + 1")) for answer in answers]
    assert examples.score(wrong, examples.validation) < 0.5
    assert examples.score([""] * len(answers), examples.validation) == 0.0


def test_an_answer_counts_by_what_it_returns():
    row = {"prompt": "", "completion": " SELECT name FROM staff WHERE age > 20"}
    assert sql.score(["SELECT name FROM staff WHERE NOT age <= 20;\nSQL: more"], [row]) == 1.0
    assert sql.score(["SELECT name FROM staff ORDER BY age"], [row]) in (0.0, 1.0)
    ordered = {"prompt": "", "completion": " SELECT name FROM staff ORDER BY age DESC LIMIT 3"}
    assert sql.score(["SELECT name FROM staff ORDER BY age LIMIT 3"], [ordered]) == 0.0


def test_a_query_of_a_model_can_neither_write_nor_take_its_time():
    before = sql.returned("SELECT COUNT(*) FROM staff")
    assert sql.returned("DELETE FROM staff") is None
    assert sql.returned("DROP TABLE staff") is None
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT SUM(x) FROM c"
    assert sql.returned(endless) is None
    assert sql.returned("SELECT COUNT(*) FROM staff") == before


def test_sets_take_turns_in_blocks():
    both, one, other = find("sql+instructions"), find("sql"), find("instructions")
    assert both.train[:BLOCK] == one.train[:BLOCK]
    assert both.train[BLOCK : 2 * BLOCK] == other.train[:BLOCK]
    assert len(both.validation) == VALIDATION
    assert both.validation[: VALIDATION // 2] == one.validation[: VALIDATION // 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda n: {"prompt": f"say {n}", "completion": f" {n}"},
        lambda n: {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"{n}"}]},
        lambda n: {"text": f"say {n}: {n}"},
        lambda n: {"instruction": f"say {n}", "input": "", "output": f"{n}"},
    ],
    ids=["pairs", "messages", "text", "instructions"],
)
def test_a_file_of_any_usual_form_is_taken(tmp_path, make):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(make(number)) for number in range(50)))
    examples = find(str(file))
    assert len(examples.train) == 45
    assert len(examples.validation) == 5


def test_a_prompt_that_is_trained_on_is_not_validated_on(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"{number % 15}", "completion": f"{number}"} for number in range(60)]
    file.write_text("\n".join(map(json.dumps, rows)))
    examples = find(str(file))
    assert not {row["prompt"] for row in examples.train} & {row["prompt"] for row in examples.validation}


def test_what_cannot_be_used_is_refused_with_the_reason(tmp_path, monkeypatch):
    file = tmp_path / "rows.jsonl"
    with pytest.raises(DataError, match=r"cannot be read: No such file"):
        find(str(file))
    file.write_text("{not json")
    with pytest.raises(DataError, match="not JSON, one object a line"):
        find(str(file))
    file.write_text("\n".join(json.dumps({"prompt": f"{n}", "completion": ""}) for n in range(50)))
    with pytest.raises(DataError, match=r"0 usable rows of 50, and 20 are the fewest"):
        find(str(file))
    file.write_text("")
    with pytest.raises(DataError, match=r"0 usable rows of 0"):
        find(str(file))
    import datasets

    def no_network(*args, **kwargs):
        raise ConnectionError("Couldn't reach the hub")

    monkeypatch.setattr(datasets, "load_dataset", no_network)
    with pytest.raises(DataError, match=r"no data someone/some-set: neither here \(instructions, .*no network"):
        find("someone/some-set")


def test_a_set_of_the_hub_is_loaded_by_its_name(tmp_path):
    """From a folder, which `datasets` loads as it loads what the hub has."""
    folder = tmp_path / "set"
    folder.mkdir()
    rows = [{"prompt": f"say {n}", "completion": f" {n}"} for n in range(50)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert len(find(str(folder)).train) == 45


@pytest.mark.parametrize("name", ["manual", "library"])
def test_texts_are_divided_by_document(name):
    texts = find_texts(name)
    assert sum(map(len, texts.train)) > 300_000
    assert texts.validation
    assert not set(texts.train) & set(texts.validation)
    assert texts.digest() == find_texts(name).digest()


def test_text_of_ones_own(tmp_path, text):
    assert len(find_texts(text).train) == 28
    with pytest.raises(DataError, match=r"no text .*nowhere.txt: give a .txt file, a folder of them, or one of manual"):
        find_texts(str(tmp_path / "nowhere.txt"))
    with pytest.raises(DataError, match=r"has 0 characters of text, and 10,000 are the fewest"):
        find_texts(str(tmp_path))
    (tmp_path / "short.txt").write_text("too short")
    with pytest.raises(DataError, match=r"9 characters"):
        find_texts(str(tmp_path / "short.txt"))
