"""Foreign text and wrong values, as they are shown."""

import os
import sys
import unicodedata

import numpy as np
import pytest

from minicnn.text import aligned, brief, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb: 100%", r"a\nb: 100%"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("a\tb\rc\0\x7f", r"a\tb\rc\x00\x7f"),
        ("\u202egnp.cat", r"\u202egnp.cat"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("\ufeffa\u200bb\xad", r"\ufeffa\u200bb\xad"),
        (os.fsdecode(b"\xff.png"), r"\udcff.png"),
        (ValueError("a\x07"), r"a\x07"),
        (3, "3"),
        ("", ""),
    ],
)
def test_what_steers_a_terminal_is_escaped(text, expected):
    assert shown(text) == expected


@pytest.mark.parametrize(
    "text", ["Hündin", "日本語\u3000の猫", "می\u200cخواهم", "👩\u200d🔬 👍🏽", "[red]", r"C:\new", "a\xa0b", "é"]
)
def test_ordinary_text_stays(text):
    assert shown(text) == text


def test_every_character():
    """By Unicode's own categories; the bidirectional controls by the property that Python knows."""
    for code in range(sys.maxunicode + 1):
        c, text = chr(code), shown(chr(code))
        steers = unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(c) in (
            "LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"
        )  # fmt: skip
        assert text.isascii() if steers else text == c or not c.isprintable()
        assert text == c or text.startswith("\\") and text.isprintable()


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def test_a_value_is_shown_in_a_few_characters_of_one_line():
    values = [10**6000, "x" * 10_000, "a\nb", nested(10_000), list(range(10_000)), np.eye(3), np.zeros((99, 99, 99))]
    for text in map(brief, values):
        assert 0 < len(text) < 200 and len(text.splitlines()) == 1


def test_short_values_are_shown_as_they_are():
    assert brief([1, "x", None]) == "[1, 'x', None]" and brief("x" * 200, 300) == repr("x" * 200)


def test_a_table_goes_on_below_where_the_page_is_too_narrow():
    rows = [["run", "model", "images/s", "test"], ["a-run", "lenet", "9,000", "61.2%"], ["b", "-", "-", "-"]]
    wide = ["run    model  images/s   test", "a-run  lenet     9,000  61.2%", "b      -             -      -"]
    assert aligned(rows, (2, 3)) == aligned(rows, (2, 3), 29) == wide
    first = ["run    model  images/s", "a-run  lenet     9,000", "b      -             -"]
    assert aligned(rows, (2, 3), 28) == [*first, "", "run     test", "a-run  61.2%", "b          -"]
    assert aligned(rows, (2, 3), 1)[:3] == ["run    model", "a-run  lenet", "b      -"]  # no cell is cut


def test_wide_characters_take_two_columns_and_accents_none():
    rows = [["日本", "1"], ["🐶 a", "22"], ["u\u0308ber", "3"]]
    assert aligned(rows, (1,)) == ["日本   1", "🐶 a  22", "u\u0308ber   3"]
