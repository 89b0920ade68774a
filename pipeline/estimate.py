"""How much longer a batch will take: a schedule of what is left, with the times that its exports took before.

A range, and an open one where something is left that was never timed; nothing is made up for what is not known.
"""

import heapq
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Estimate", "Timing", "estimate_rest"]

# How the time of an export compares with its time before, until this batch itself has told; the quartiles are 0.8 and
# 1.25. Between two releases of the zoo on a machine that others used as well they were 0.66 and 1.04.
_USUAL_RATIOS = (0.6, 1.0, 1.5)
# How far exports of one batch lie apart, for one that was never timed.
_USUAL_FACTORS = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Timing:
    """An export that this batch has carried out.

    Args:
        duration_s: What it took.
        expected_s: What was expected, if anything was.
    """

    duration_s: float
    expected_s: float | None = None


@dataclass(frozen=True)
class Estimate:
    """The time left, in seconds; `high_s` is None where something is left of which no time is known."""

    low_s: float
    high_s: float | None


@dataclass(frozen=True)
class _Range:
    low_s: float
    middle_s: float
    high_s: float

    def left_after(self, elapsed_s: float) -> tuple[float, float]:
        """What is left of an export that runs; one that is over its time may go on for as long as it is over."""
        over_s = max(0.0, elapsed_s - self.middle_s)
        return max(0.0, self.low_s - elapsed_s), max(self.high_s - elapsed_s, over_s)


def estimate_rest(
    *,
    expected_s: Mapping[str, float | None],
    finished: Sequence[Timing],
    running_s: Mapping[str, float],
    waiting: Iterable[str],
    workers: int,
) -> Estimate | None:
    """Schedule what is left on the workers, once with short times and once with long ones.

    What the machine makes of the expected times shows in the exports that have finished; the short and the long times
    are the quartiles of that. An export that was never timed takes as long as those that have finished.

    Args:
        expected_s: Of each export, its last duration, if it has one.
        finished: The exports that this batch has carried out.
        running_s: For how long each running export has run.
        waiting: In the order in which they will start.
        workers: At a time.

    Returns:
        None while nothing is known of anything that is left.
    """
    ratios = [timing.duration_s / timing.expected_s for timing in finished if timing.expected_s]
    ratio = _find_range([*_USUAL_RATIOS, *ratios])
    durations = [timing.duration_s for timing in finished]
    unknown = _find_range([*_spread(durations), *durations]) if durations else None

    def expect(name: str) -> _Range | None:
        usual_s = expected_s.get(name)
        if usual_s is None:
            return unknown
        return _Range(ratio.low_s * usual_s, ratio.middle_s * usual_s, ratio.high_s * usual_s)

    at_work = [(expect(name), elapsed_s) for name, elapsed_s in running_s.items()]
    to_come = [expect(name) for name in waiting]
    known = [span for span in (*(span for span, _ in at_work), *to_come) if span is not None]
    num_left = len(at_work) + len(to_come)
    if num_left and not known:
        return None
    left = [span.left_after(elapsed_s) if span else (0.0, 0.0) for span, elapsed_s in at_work]
    low_s = _schedule([low for low, _ in left], [span.low_s if span else 0.0 for span in to_come], workers)
    if len(known) < num_left:
        return Estimate(low_s, None)
    return Estimate(low_s, _schedule([high for _, high in left], [span.high_s for span in known[len(left) :]], workers))


def _find_range(values: Sequence[float]) -> _Range:
    return _Range(*statistics.quantiles(values, n=4, method="inclusive"))


def _spread(durations: Sequence[float]) -> list[float]:
    middle = statistics.median(durations)
    return [middle * factor for factor in _USUAL_FACTORS]


def _schedule(running_s: Sequence[float], waiting_s: Sequence[float], workers: int) -> float:
    """When the last worker is done, if each takes the next export as soon as it is free."""
    free_at = [*running_s, *[0.0] * (workers - len(running_s))] or [0.0]
    heapq.heapify(free_at)
    for duration_s in waiting_s:
        heapq.heapreplace(free_at, free_at[0] + duration_s)
    return max(free_at)
