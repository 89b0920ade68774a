"""How numbers and names read on a page: short, with their unit, and a dash where nothing was measured."""

import math

__all__ = ["FILTERS", "cut", "say_bytes", "say_count", "say_number", "say_seconds", "say_share"]

_NONE = "\N{EN DASH}"
_KIBI = 1024
_MAX_NAME = 160


def say_number(value: float | None) -> str:
    """Three digits: `1.5e-07`, `0.54`, `12`."""
    return _NONE if value is None else f"{value:.3g}"


def say_count(value: int | None) -> str:
    """With thousands set apart."""
    return _NONE if value is None else f"{value:,}"


def say_bytes(value: float | None) -> str:
    """Three digits and a unit: `812 B`, `3.42 MiB`."""
    if value is None:
        return _NONE
    size, unit = float(value), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        # What would round to 1000 or more is told in the next unit.
        if abs(size) < 999.5:
            break
        size, unit = size / _KIBI, larger
    return f"{size:.0f} B" if unit == "B" else f"{_three_digits(size)} {unit}"


def say_seconds(value: float | None) -> str:
    """Three digits and a unit: `210 us`, `12.3 s`, `4 min 10 s`."""
    if value is None:
        return _NONE
    for unit, factor in (("\N{GREEK SMALL LETTER MU}s", 1e6), ("ms", 1e3)):
        if value * factor < 999.5:
            return f"{_three_digits(value * factor)} {unit}"
    if value < 99.95:
        return f"{_three_digits(value)} s"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes} min {seconds} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def say_share(value: float | None) -> str:
    """A part of a whole, or of a limit: `3 %`, `0.012 %`, `250 %`, `12,000 x` the limit."""
    if value is None:
        return _NONE
    if value >= 10:
        return f"{value:,.0f} \N{MULTIPLICATION SIGN}"
    return f"{100 * value:.2g} %" if value < 0.995 else f"{100 * value:.0f} %"


def cut(text: str, length: int = _MAX_NAME) -> str:
    """The beginning of a long text, and how long it is."""
    return text if len(text) <= length else f"{text[:length]}… ({len(text):,} characters)"


def _three_digits(value: float) -> str:
    if not value:
        return "0"
    # First to three digits: else 0.9996 would have four.
    value = float(f"{value:.3g}") if abs(value) < 1000 else value
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


FILTERS = {
    "bytes": say_bytes,
    "count": say_count,
    "cut": cut,
    "number": say_number,
    "seconds": say_seconds,
    "share": say_share,
}
