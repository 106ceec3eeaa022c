"""Pages are written whole or not at all, and never over what somebody else wrote."""

from pathlib import Path

import pytest

from greedylr.presentation import check_writable, render, write_whole
from greedylr.presentation.rendering import squeezed


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    file = tmp_path / "report.html"
    write_whole(file, "before")

    def full(self, mode):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "chmod", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, "after")
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_a_page_is_replaced_by_those_who_wrote_it_only(tmp_path):
    (tmp_path / "own.html.j2").write_text('{% extends "base.html.j2" %}{% block body %}{{ text }}{% endblock %}')
    page = tmp_path / "new" / "report.html"
    check_writable(page, "me")
    assert not page.parent.exists()
    write_whole(page, render(tmp_path, "own.html.j2", "me", text="<b>"))
    assert "&lt;b&gt;" in page.read_text(encoding="utf-8")
    check_writable(page, "me")
    with pytest.raises(FileExistsError, match=r"cannot write to .*new: it has a report\.html that greedylr did not"):
        check_writable(page, "somebody else")


@pytest.mark.parametrize(("folder", "said"), [("file", "it is not a folder"), ("file/below", "Not a directory")])
def test_a_folder_that_is_none_is_named(tmp_path, folder, said):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match=f"cannot write to .*{folder}: {said}"):
        check_writable(tmp_path / folder / "report.html", "me")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_planted_link_is_not_followed_and_permissions_are_the_usual_ones(tmp_path):
    file, other = tmp_path / "report.html", tmp_path / "other"
    other.write_text("mine")
    file.symlink_to(other)
    write_whole(file, "ours")
    assert (file.read_text(), other.read_text()) == ("ours", "mine")
    assert not file.is_symlink()
    (tmp_path / "usual").write_text("")
    assert file.stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("text", ["", "a", "ab", "abc", "abcd", "é" * 1000, "</script><!--" * 50])
def test_what_is_squeezed_ends_no_script_and_is_unpacked_by_the_page(browser, show, tmp_path, text):
    assert "<" not in squeezed(text)
    (tmp_path / "own.html.j2").write_text(
        '{% extends "base.html.j2" %}{% block plotly %}{% endblock %}'
        '{% block body %}<script type="text/plain" id="own" data-squeezed>{{ text | squeezed }}</script>{% endblock %}'
        '{% block script %}window.got = document.getElementById("own").textContent;{% endblock %}'
    )
    show(render(tmp_path, "own.html.j2", "me", text=text))
    assert browser.execute_script("return window.got") == text


def test_a_browser_that_cannot_unpack_is_told_so(browser, tmp_path):
    (tmp_path / "own.html.j2").write_text('{% extends "base.html.j2" %}{% block body %}a table{% endblock %}')
    page = render(tmp_path, "own.html.j2", "me")
    (tmp_path / "page.html").write_text(
        page.replace("<head>", "<head><script>delete window.DecompressionStream</script>")
    )
    browser.get((tmp_path / "page.html").as_uri())
    body = browser.find_element("tag name", "body").text
    assert "a table" in body
    assert "The charts need a browser of 2023 or later; the tables do not." in body
