"""Terminal output: tables that fit any width, and foreign text without control characters."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

# A terminal would take them for orders, to clear the screen or to rename the window; bytes of a name that are no text
# (surrogates) it could not be sent.
_CONTROL = {code: "�" for code in [*range(32), *range(127, 160), *range(0xD800, 0xE000)] if chr(code) not in "\t\n"}
_GAP = 3  # Characters between two columns.
_WORDS = 20  # Characters in a line of a column of words, where there is no room for all of it.


def plain(text: str) -> str:
    r"""A text of others as it may be sent to a terminal, without control characters but ends of lines and tabs.

    Example:
        >>> plain("a\x1b[2Jb")
        'a�[2Jb'
    """
    return text.translate(_CONTROL)


def as_markup(text: object) -> str:
    """A text of others, such as a path, to stand among rich's markup."""
    return escape(plain(str(text)))


class FittingTable:
    """A table of which nothing is cut, however narrow the terminal.

    Columns of words are broken between words, the others nowhere. Columns for which there is no room come below, beside
    the first column once more.

    Args:
        title: Above it, in rich's markup, as all texts.
        columns: The headings; none: no line of headings.
        words: Numbers of the columns that hold words; the others hold numbers, at the right.
        caption: Below it.

    Example:
        >>> table = FittingTable("Losses", "scheduler", "first", "second", "third")
        >>> table.add_row("cosine", "1.25 ± 0.5", "2.25 ± 0.5", "3.25 ± 0.5")
        >>> Console(width=40).print(table)
        Losses
        <BLANKLINE>
          scheduler        first       second
         ─────────────────────────────────────
          cosine      1.25 ± 0.5   2.25 ± 0.5
        <BLANKLINE>
        Losses
        <BLANKLINE>
          scheduler        third
         ────────────────────────
          cosine      3.25 ± 0.5
        <BLANKLINE>
    """

    def __init__(self, title: str, *columns: str, words: Sequence[int] = (0,), caption: str = "") -> None:
        self.title = title
        self.columns = columns
        self.words = words
        self.caption = caption
        self._rows: list[tuple[list[Text], bool]] = []

    def add_row(self, *cells: str | Text) -> None:
        """Add a row; cells that are not given are empty."""
        texts = [cell if isinstance(cell, Text) else Text.from_markup(cell) for cell in cells]
        self._rows.append((texts, False))

    def add_section(self) -> None:
        """Draw a line below the last row."""
        if self._rows:
            self._rows[-1] = (self._rows[-1][0], True)

    def __bool__(self) -> bool:
        """True if there is a row."""
        return bool(self._rows)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        count = max([len(self.columns), *(len(cells) for cells, _ in self._rows)])
        ranges = [self._range(column) for column in range(count)]
        for block, widths in _blocks(ranges, options.max_width):
            yield self._block(block, widths)

    def _range(self, column: int) -> tuple[int, int]:
        """Least and largest width of a column: its longest word, or line of numbers, and its longest line."""
        cells = [cells[column] for cells, _ in self._rows if column < len(cells)]
        heading = Text.from_markup(self.columns[column]) if self.columns else Text()
        lines = [line.cell_len for cell in cells for line in cell.split()]
        in_heading = [word.cell_len for word in heading.split(" ")]
        if column not in self.words:
            narrow = max([1, *lines, *in_heading, -(-heading.cell_len // 2)])  # a heading of two lines, or little more
            return narrow, max(narrow, heading.cell_len)
        words = [word.cell_len for cell in cells for line in cell.split() for word in line.split(" ")]
        return max([1, *words, *in_heading]), max([1, *lines, heading.cell_len])

    def _block(self, block: Sequence[int], widths: Sequence[int]) -> Table:
        table = Table(
            title=self.title,
            title_justify="left",
            title_style="bold",
            caption=self.caption or None,
            caption_justify="left",
            box=box.SIMPLE_HEAD if self.columns else box.SIMPLE,
            show_header=bool(self.columns),
        )
        for column, width in zip(block, widths, strict=True):
            justify = "left" if column in self.words else "right"
            heading = self.columns[column] if self.columns else ""
            table.add_column(heading, justify=justify, width=width, overflow="fold")  # type: ignore[arg-type]
        for cells, ends in self._rows:
            table.add_row(*(cells[column] if column < len(cells) else "" for column in block), end_section=ends)
        return table


def _blocks(ranges: Sequence[tuple[int, int]], width: int) -> list[tuple[list[int], list[int]]]:
    """Columns that stand beside each other, the first always among them, and their widths.

    Args:
        ranges: How narrow and how wide each column may be.
        width: Characters in a line.
    """
    least = [narrow if column else max(narrow, min(wide, _WORDS)) for column, (narrow, wide) in enumerate(ranges)]
    room = width - 1 - _GAP  # Of all other columns, with the gap before each, and of the first.
    if any(least[0] + _GAP + one > room for one in least[1:]):
        least = [narrow for narrow, _ in ranges]
    blocks = [[0]]
    for column in range(1, len(ranges)):
        used = sum(least[one] for one in blocks[-1]) + _GAP * len(blocks[-1])
        if len(blocks[-1]) > 1 and used + least[column] > room:
            blocks.append([0])
        blocks[-1].append(column)
    return [(block, _widths(block, least, [wide for _, wide in ranges], room)) for block in blocks]


def _widths(block: Sequence[int], least: Sequence[int], most: Sequence[int], room: int) -> list[int]:
    """Distribute the room that is left over the columns that want it, the narrowest first."""
    widths = [least[column] for column in block]
    free = room - _GAP * (len(block) - 1) - sum(widths)
    while free > 0:
        wanting = [place for place, column in enumerate(block) if widths[place] < most[column]]
        if not wanting:
            break
        widths[min(wanting, key=widths.__getitem__)] += 1
        free -= 1
    return widths
