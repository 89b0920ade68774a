"""The right name that a misspelt one was probably meant to be."""

from collections.abc import Iterable
from difflib import SequenceMatcher

__all__ = ["suggest"]

# Of a name's letters in common order; below it a suggestion puzzles more than it helps.
_MIN_RATIO = 0.6


def suggest(name: str, known: Iterable[str], min_ratio: float = _MIN_RATIO) -> str | None:
    """The nearest of the known names, or None; `opest` is near to `opset_version` by one of its parts.

    Args:
        name: As it was typed.
        known: The right names.
        min_ratio: How much of the letters has to agree, from 0 to 1.
    """
    ranked = sorted(((_similarity(name, other), other) for other in known), reverse=True)
    return ranked[0][1] if ranked and ranked[0][0] >= min_ratio else None


def _similarity(name: str, other: str) -> float:
    candidates = {other: 1.0, **{part: 0.9 for part in other.split("_") if part != other}}
    return max(weight * SequenceMatcher(None, name, text).ratio() for text, weight in candidates.items())
