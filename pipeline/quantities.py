"""How durations, sizes and estimates read: in few characters, and no more exactly than they are known."""

from pipeline.estimate import Estimate

__all__ = ["say_bytes", "say_clock", "say_duration", "say_rest"]

_MINUTE_S = 60
_HOUR_S = 3600
# Up to here in seconds, and up to here in minutes.
_MAX_SECONDS = 100
_MAX_MINUTES_S = 100 * _MINUTE_S
# Below this nobody can do anything with a number.
_SOON_S = 8


def say_clock(seconds: float) -> str:
    """A running time: `0:07`, `12:30`, `1:02:03`."""
    minutes, rest = divmod(int(max(0, seconds)), _MINUTE_S)
    hours, minutes = divmod(minutes, _MINUTE_S)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def say_duration(seconds: float) -> str:
    """A time that is over: `2.3 s`, `4 min 10 s`, `2 h 5 min`."""
    if seconds < _MAX_SECONDS:
        return f"{seconds:.1f} s"
    if seconds < _HOUR_S:
        return f"{seconds // _MINUTE_S:.0f} min {seconds % _MINUTE_S:.0f} s"
    return f"{seconds // _HOUR_S:.0f} h {seconds % _HOUR_S // _MINUTE_S:.0f} min"


def say_bytes(size: int) -> str:
    """A size in memory: `812 MiB`, `12.3 GiB`."""
    mebibytes = size / 2**20
    return f"{mebibytes:.0f} MiB" if mebibytes < 10_000 else f"{mebibytes / 1024:.1f} GiB"


def say_rest(estimate: Estimate | None) -> str:
    """The time left: `about 40 s left`, `3 to 5 min left`, `at least 2 min left`, or that there is no estimate."""
    if estimate is None or (estimate.high_s is None and estimate.low_s < _SOON_S):
        return "no estimate yet"
    longest_s = estimate.low_s if estimate.high_s is None else estimate.high_s
    if longest_s < _SOON_S:
        return "a few s left"
    low, unit = _round(estimate.low_s, longest_s)
    if estimate.high_s is None:
        return f"at least {low:g} {unit} left"
    high, _ = _round(longest_s, longest_s)
    if low == high:
        return f"about {high:g} {unit} left"
    return f"{low:g} to {high:g} {unit} left" if low else f"up to {high:g} {unit} left"


def _round(seconds: float, longest_s: float) -> tuple[float, str]:
    """To the unit, and as coarsely, as the longest time of the same sentence asks for."""
    if longest_s < _MAX_SECONDS:
        return 5 * round(seconds / 5), "s"
    if longest_s < _MAX_MINUTES_S:
        return round(seconds / _MINUTE_S), "min"
    return round(seconds / _HOUR_S * 2) / 2, "h"
