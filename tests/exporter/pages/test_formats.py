"""Numbers read with three digits and a unit, at every size, and whatever a file says."""

import pytest

from exporter.pages.formats import (
    cut,
    keep_units,
    say_bytes,
    say_count,
    say_factor,
    say_growth,
    say_number,
    say_seconds,
    say_share,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"),
        (0, "0 B"),
        (4, "4 B"),
        (812, "812 B"),
        (1000, "0.977 KiB"),
        (1024, "1.00 KiB"),
        (999.6 * 1024, "0.976 MiB"),
        (3.42 * 2**20, "3.42 MiB"),
        (250 * 2**30, "250 GiB"),
        (5000 * 2**40, "5,000 TiB"),
        (1e300, "9.09e287 TiB"),
        (-3 * 2**20, "-3.00 MiB"),
    ],
)
def test_sizes(value, text):
    assert say_bytes(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"),
        (0.0, "0 s"),
        (4.2e-8, "42.0 ns"),
        (0.000_036_8, "36.8 \N{GREEK SMALL LETTER MU}s"),
        (0.9996, "1.00 s"),
        (0.044, "44.0 ms"),
        (12.34, "12.3 s"),
        (99.97, "1 min 40 s"),
        (3725, "1 h 2 min"),
        (180_000, "2 d 2 h"),
        (1e9, "11,600 d"),
        (1e300, "1.16e295 d"),
        (-0.5, "-500 ms"),
    ],
)
def test_times(value, text):
    assert say_seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"),
        (0.0, "0 %"),
        (3e-9, "< 0.001 %"),
        (1e-5, "0.001 %"),
        (0.00012, "0.012 %"),
        (0.053, "5.3 %"),
        (1.0, "100 %"),
        (5.96, "596 %"),
        (12_000.4, "12,000 \N{MULTIPLICATION SIGN}"),
        (8.43e6, "8.43 million \N{MULTIPLICATION SIGN}"),
    ],
)
def test_shares_of_a_limit(value, text):
    assert say_share(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"),
        (0, "0"),
        (-0.0, "0"),
        (0.54, "0.54"),
        (12, "12"),
        (999.7, "1,000"),
        (12_345, "12,300"),
        (999_499, "999,000"),
        (999_501, "1 million"),
        (8.4e6, "8.4 million"),
        (9.999e8, "1 billion"),
        (8.43e14, "843 trillion"),
        (9.9999e14, "1e15"),
        (3.4028e38, "3.4e38"),
        (0.001_23, "0.00123"),
        (0.000_999_7, "0.001"),
        (0.000_12, "1.2e-4"),
        (1.234e-7, "1.23e-7"),
        (5e-324, "4.94e-324"),
        (-1.5e-7, "-1.5e-7"),
        (-1.5e6, "-1.5 million"),
    ],
)
def test_numbers(value, text):
    assert say_number(value) == text


@pytest.mark.parametrize("say", [say_number, say_factor, say_bytes, say_seconds, say_share])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e308, -1e308, 5e-324])
def test_whatever_a_file_says_can_be_told(say, value):
    assert say(value).strip()
    if value == float("inf"):
        assert say(value).startswith("\N{INFINITY}")
    if value != value:  # noqa: PLR0124  (NaN)
        assert say(value) == "NaN"


def test_counts_and_factors():
    assert (say_count(1_234_567), say_count(None)) == ("1,234,567", "\N{EN DASH}")
    assert (say_factor(1.5), say_factor(None)) == ("1.5 \N{MULTIPLICATION SIGN}", "\N{EN DASH}")


@pytest.mark.parametrize(
    ("now", "places", "text"),
    [(112, 0, "+12 %"), (30.5, 1, "-69.5 %"), (999, 0, "+899 %"), (1000, 0, "x10"), (8.4e9, 0, "x84 million")],
)
def test_growth_is_told_in_percent_or_as_a_multiple(now, places, text):
    assert say_growth(now, 100, places) == text


def test_what_is_cut_says_how_long_it_was():
    assert cut("abc", 3) == "abc"
    assert cut("abcd", 3) == "abc… (4 characters)"


def test_no_line_begins_with_the_sign_of_a_number():
    nbsp = "\N{NO-BREAK SPACE}"
    assert keep_units("at most 98 % of 3 \N{MULTIPLICATION SIGN} it") == (
        f"at most 98{nbsp}% of 3{nbsp}\N{MULTIPLICATION SIGN} it"
    )
