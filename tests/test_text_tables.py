"""Tables as text: other programs read them back."""

from __future__ import annotations

import csv

import pytest

from iqrun.text_tables import csv_text, is_number, markdown_table


def test_csv_is_read_back() -> None:
    """Commas, quotes and line ends in cells survive; None is empty."""
    rows = [{"name": 'a,"b"\nc', "n": 1.5, "x": None}, {"name": "", "n": -2, "x": True}]
    found = list(csv.DictReader(csv_text(rows).splitlines(keepends=True)))
    assert found == [{"name": 'a,"b"\nc', "n": "1.5", "x": ""}, {"name": "", "n": "-2", "x": "True"}]


def test_markdown_aligns_numbers_to_the_right() -> None:
    """A column of numbers stands to the right; bars in cells do not end them."""
    text = markdown_table(["name", "n"], [["a|b", "1,000"], ["c", "-"]])
    assert text == "| name | n |\n| --- | ---: |\n| a\\|b | 1,000 |\n| c | - |"


@pytest.mark.parametrize(("text", "expected"), [("12", True), ("-0.1 %", True), ("-", True), ("", True), ("a1", False)])
def test_numbers(text: str, expected: bool) -> None:
    """Numbers with units count, words with numbers do not."""
    assert is_number(text) is expected
