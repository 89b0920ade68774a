"""How numbers and names read on a page: short, with their unit, and a dash where nothing was measured.

Three digits say what a reviewer decides by. Exponents are for errors alone, written as a tolerance is in a config
(`1e-5`); what is large is told in words. Whatever a file says can be told: also 1e300, infinity and NaN.
"""

import math
import re

__all__ = [
    "FILTERS",
    "cut",
    "keep_units",
    "say_bytes",
    "say_count",
    "say_factor",
    "say_growth",
    "say_number",
    "say_seconds",
    "say_share",
]

_NONE = "\N{EN DASH}"
_KIBI = 1024
_MAX_NAME = 160
_WORDS = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))
# From here on a multiple reads better than percent.
_MANY = 10


def say_number(value: float | None) -> str:
    """Three digits: `1.5e-7`, `0.54`, `12,300`, `8.4 million`."""
    if value is None:
        return _NONE
    if not math.isfinite(value):
        return _say_endless(value)
    size = abs(value)
    if size >= 0.9995e15 or 0 < size < 0.000_999_5:
        digits, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(digits):g}e{int(exponent)}"
    # What would round to the next word is told in it.
    for factor, word in _WORDS:
        if size >= 0.9995 * factor:
            return f"{value / factor:.3g} {word}"
    # Plus 0.0: -0.0 is 0.
    return f"{float(f'{value:.3g}') + 0.0:,.5f}".rstrip("0").rstrip(".")


def say_factor(value: float | None) -> str:
    """A multiple: `1.5 x`, `8.4 million x`, with the sign for times."""
    text = say_number(value)
    return text if value is None or math.isnan(value) else f"{text} \N{MULTIPLICATION SIGN}"


def say_growth(now: float, before: float, places: int = 0) -> str:
    """How much more or less it is than it was, which was not 0: `+12 %`, `-30.5 %`, `x12`.

    Args:
        now: As it is.
        before: As it was.
        places: After the point of a percentage.
    """
    ratio = now / before
    if not -_MANY < ratio < _MANY:
        return f"x{say_number(ratio)}"
    return f"{100 * (ratio - 1):+.{places}f} %"


def say_count(value: int | None) -> str:
    """With thousands set apart."""
    return _NONE if value is None else f"{value:,}"


def say_bytes(value: float | None) -> str:
    """Three digits and a unit: `812 B`, `3.42 MiB`."""
    if value is None:
        return _NONE
    if not math.isfinite(value):
        return _say_endless(value)
    size, unit = float(value), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        # What would round to 1000 or more is told in the next unit.
        if abs(size) < 999.5:
            break
        size, unit = size / _KIBI, larger
    return f"{size:.0f} B" if unit == "B" else f"{_three_digits(size)} {unit}"


def say_seconds(value: float | None) -> str:
    """Three digits and a unit: `210 us`, `12.3 s`, `4 min 10 s`, `2 d 3 h`."""
    if value is None:
        return _NONE
    if not math.isfinite(value):
        return _say_endless(value)
    if value <= 0:
        return f"-{say_seconds(-value)}" if value else "0 s"
    for unit, factor in (("ns", 1e9), ("\N{GREEK SMALL LETTER MU}s", 1e6), ("ms", 1e3)):
        if value * factor < 999.5:
            return f"{_three_digits(value * factor)} {unit}"
    if value < 99.95:
        return f"{_three_digits(value)} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h" if days < 100 else f"{say_number(days)} d"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def say_share(value: float | None) -> str:
    """A part of a whole, or of a limit: `3 %`, `0.012 %`, `250 %`, `12,000 x` the limit.

    What is less than a hundred-thousandth of it is that, however much less.
    """
    if value is None:
        return _NONE
    if not value < _MANY:
        return say_factor(value)
    if 0 < value < 1e-5:
        return "< 0.001 %"
    return f"{100 * value:.2g} %" if value < 0.995 else f"{100 * value:.0f} %"


def cut(text: str, length: int = _MAX_NAME) -> str:
    """The beginning of a long text, and how long it is."""
    return text if len(text) <= length else f"{text[:length]}… ({len(text):,} characters)"


def keep_units(text: str) -> str:
    """A sentence in which no line begins with a percent sign or a sign for times."""
    return re.sub(r"(?<=\d) (?=[%\N{MULTIPLICATION SIGN}])", "\N{NO-BREAK SPACE}", text)


def _say_endless(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "\N{INFINITY}" if value > 0 else "-\N{INFINITY}"


def _three_digits(value: float) -> str:
    if not value:
        return "0"
    # First to three digits: else 0.9996 would have four.
    value = float(f"{value:.3g}") if abs(value) < 1000 else value
    if not 0.01 <= abs(value) < 1e6:
        return say_number(value)
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


FILTERS = {
    "bytes": say_bytes,
    "count": say_count,
    "cut": cut,
    "factor": say_factor,
    "number": say_number,
    "seconds": say_seconds,
    "share": say_share,
    "unbroken": keep_units,
}
