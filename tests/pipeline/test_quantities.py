import pytest

from pipeline.estimate import Estimate
from pipeline.quantities import say_bytes, say_clock, say_duration, say_rest


@pytest.mark.parametrize(
    ("seconds", "words"), [(-1, "0:00"), (7.9, "0:07"), (750, "12:30"), (3723, "1:02:03"), (360_000, "100:00:00")]
)
def test_a_running_time_reads_like_a_clock(seconds, words):
    assert say_clock(seconds) == words


@pytest.mark.parametrize(("seconds", "words"), [(2.34, "2.3 s"), (250, "4 min 10 s"), (7500, "2 h 5 min")])
def test_a_duration_has_the_unit_of_its_size(seconds, words):
    assert say_duration(seconds) == words


def test_a_size_is_in_mebibytes_until_there_are_too_many():
    assert (say_bytes(812 << 20), say_bytes(20 << 30)) == ("812 MiB", "20.0 GiB")


@pytest.mark.parametrize(
    ("low_s", "high_s", "words"),
    [
        (0, 3, "a few s left"),
        (38, 41, "about 40 s left"),
        (30, 61, "30 to 60 s left"),
        (1, 60, "up to 60 s left"),
        (50, 125, "1 to 2 min left"),
        (170, 190, "about 3 min left"),
        (3000, 9000, "1 to 2.5 h left"),
        (130, None, "at least 2 min left"),
        (3, None, "no estimate yet"),
    ],
)
def test_the_time_left_says_how_sure_it_is(low_s, high_s, words):
    assert say_rest(Estimate(low_s, high_s)) == words


def test_without_an_estimate_none_is_made_up():
    assert say_rest(None) == "no estimate yet"
