"""HTML for notebooks: text and tables in which whatever comes from outside is text.

Styles stand at the elements, since a style sheet is dropped where a notebook is not trusted.
"""

import html
from collections.abc import Collection, Iterable, Sequence

from minicnn.text import shown

_CAPTION = "font-weight:600;margin-bottom:4px"
_CELL = "padding:1px 10px;white-space:pre;text-align:"
_BAR = "background:linear-gradient(90deg,rgba(0,114,178,.3) {0:.1%},transparent {0:.1%});"


def html_text(caption: str, text: str) -> str:
    """Return HTML of a caption and lines in the font of code."""
    return _scrolling(caption, f'<pre style="margin:0;font-family:monospace">{html.escape(text)}</pre>')


def html_table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str | float]], right: Collection[int] = ()
) -> str:
    """Return an HTML table whose text is escaped.

    Args:
        caption: a line above it.
        head: the names of the columns.
        rows: cells, as many as ``head``, or one that spans all columns. A float from 0 to 1 is shown as a percentage on
            a bar of that length.
        right: numbers of the columns that are flush right.

    Example:
        >>> from minicnn.markup import html_table
        >>> "<i>" in html_table("", ["name"], [["<i>"]])
        False
    """
    sides = ["right" if column in right else "left" for column in range(len(head))]
    cells = [_cell("th", name, side) for name, side in zip(head, sides, strict=True)]
    lines = [f"<tr>{''.join(cells)}</tr>"]
    for row in rows:
        if len(row) == 1 < len(head):
            cells = [_cell("td", row[0], "left", f' colspan="{len(head)}"')]
        else:
            cells = [_cell("td", value, side) for value, side in zip(row, sides, strict=True)]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return _scrolling(caption, f'<table style="border-collapse:collapse;margin:0">{"".join(lines)}</table>')


def _cell(tag: str, value: str | float, side: str, attributes: str = "") -> str:
    bar, text = "", value
    if isinstance(value, float):
        bar, text = _BAR.format(value), f"{value:.1%}"
    return f'<{tag}{attributes} style="{bar}{_CELL}{side}">{html.escape(shown(text))}</{tag}>'


def _scrolling(caption: str, content: str) -> str:
    """Return HTML below a caption, in a box that scrolls where it is large."""
    head = f'<div style="{_CAPTION}">{html.escape(shown(caption))}</div>' if caption else ""
    return f'<div>{head}<div style="max-height:36em;overflow:auto">{content}</div></div>'
