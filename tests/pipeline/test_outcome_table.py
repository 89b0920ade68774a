import io
from dataclasses import replace

import pytest
from records import CANCELLED, FAILED, PASSED, UP_TO_DATE
from rich.console import Console

from pipeline.outcome_table import choose_rows, make_table

ALL = (PASSED, UP_TO_DATE, FAILED, CANCELLED)


def show(exports, width=160):
    """The table's lines."""
    file = io.StringIO()
    Console(file=file, width=width).print(make_table(exports, width))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_the_table_has_a_row_with_the_numbers_of_each_export():
    rows = [line.split() for line in show(ALL)]
    names = "export outcome opset max_abs_diff peak MiB size KiB nodes ORT ms time s"
    assert rows[0] == names.split()
    assert rows[1] == ["mlp-opset18", "passed", "18", "1.5e-07", "150", "3,000", "42", "1.23", "12.3"]
    assert rows[2] == ["bert", "up", "to", "date", "20"]
    assert rows[3] == ["vit", "failed", "20", "0.0"]
    assert rows[4] == ["clip", "cancelled", "20", "0.0"]


def test_a_name_of_60_characters_stays_on_one_line():
    assert any(line.startswith("m" * 60) for line in show([replace(UP_TO_DATE, id="m" * 60)]))


@pytest.mark.parametrize("width", [160, 80, 60, 40, 30])
def test_where_it_is_narrow_columns_are_left_out_and_none_is_cut(width):
    header, *rows = show(ALL, width)
    assert all(len(line) <= width for line in (header, *rows))
    assert len(rows) == 4
    assert header.split()[:2] == ["export", "outcome"]
    assert "\u2026" not in "".join((header, *rows))
    assert ("nodes" in header) == (width > 80)
    assert ("time s" in header) == (width >= 40)


def test_a_long_name_is_folded_in_a_narrow_table():
    lines = show([replace(PASSED, id="x" * 50)], 60)
    assert len(lines) > 2
    assert all(len(line) <= 60 for line in lines)
    assert lines[1].endswith("12.3")


def test_of_a_large_batch_only_what_needs_attention_is_shown():
    many = [replace(PASSED, id=f"e{number}") for number in range(200)]
    assert len(choose_rows(many)) == 200
    assert choose_rows([*many, FAILED, UP_TO_DATE, CANCELLED]) == [FAILED, CANCELLED]
    assert choose_rows([*many, PASSED]) == []
