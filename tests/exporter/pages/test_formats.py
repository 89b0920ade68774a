"""Numbers read with three digits and a unit, at every size."""

import pytest

from exporter.pages.formats import cut, say_bytes, say_count, say_number, say_seconds, say_share


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
        (5000 * 2**40, "5000 TiB"),
    ],
)
def test_sizes(value, text):
    assert say_bytes(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"),
        (0.0, "0 \N{GREEK SMALL LETTER MU}s"),
        (0.000_036_8, "36.8 \N{GREEK SMALL LETTER MU}s"),
        (0.9996, "1.00 s"),
        (0.044, "44.0 ms"),
        (12.34, "12.3 s"),
        (99.97, "1 min 40 s"),
        (3725, "1 h 2 min"),
    ],
)
def test_times(value, text):
    assert say_seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "\N{EN DASH}"), (0.0, "0 %"), (0.00012, "0.012 %"), (0.053, "5.3 %"), (1.0, "100 %"), (5.96, "596 %")],
)
def test_shares_of_a_limit(value, text):
    assert say_share(value) == text


def test_shares_far_over_the_limit_are_factors():
    assert say_share(12_000.4) == "12,000 \N{MULTIPLICATION SIGN}"


def test_counts_and_numbers():
    assert (say_count(1_234_567), say_count(None)) == ("1,234,567", "\N{EN DASH}")
    assert (say_number(1.234e-7), say_number(None)) == ("1.23e-07", "\N{EN DASH}")


def test_what_is_cut_says_how_long_it_was():
    assert cut("abc", 3) == "abc"
    assert cut("abcd", 3) == "abc… (4 characters)"
