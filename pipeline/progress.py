"""How far a batch is: what has ended, what runs, what waits. The display shows it, and `pipeline.status` too."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.estimate import Estimate, Timing, estimate_rest
from registry_sync.record import Outcome

__all__ = ["BatchProgress", "RunningExport"]

# How old an estimate gets for each export that is left. Making one takes 3 microseconds for each, so that even ten
# thousand exports do not keep a core busy for more than half a percent of its time with it.
_AGE_S = 6e-4
# Their times tell of other exports' times; a failure may have come at once.
_TELLING = (Outcome.passed, Outcome.unproven)


@dataclass
class RunningExport:
    """One export that has a worker.

    Args:
        began_s: When, on the clock of whoever keeps the progress.
        num_tries: Which try this is.
        step: The step at work, as far as was seen.
        rss_bytes: Resident memory of its worker.
    """

    began_s: float
    num_tries: int = 1
    step: str = ""
    rss_bytes: int | None = None


@dataclass
class BatchProgress:
    """Is told what happens, in the order in which it does.

    Args:
        num_exports: Of the batch, those that are up to date among them.
        expected_s: Of each export that is due, its last duration, if it has one; in the order in which they start.
        workers: At a time, as far as is known; it is more as soon as more are seen to run.
        began_s: When the batch began, on the same clock as all times here.
    """

    num_exports: int
    expected_s: Mapping[str, float | None]
    workers: int
    began_s: float
    running: dict[str, RunningExport] = field(default_factory=dict)
    waiting: dict[str, int] = field(init=False)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    _finished: list[Timing] = field(default_factory=list)
    _estimate: Estimate | None = None
    _estimated_s: float | None = None
    _next_estimate_s: float = 0.0

    def __post_init__(self) -> None:
        # Each with the number of times that it was tried already.
        self.waiting = dict.fromkeys(self.expected_s, 0)

    @property
    def num_ended(self) -> int:
        return self.outcomes.total()

    def start(self, name: str, now_s: float) -> RunningExport:
        self.running[name] = RunningExport(now_s, self.waiting.pop(name, 0) + 1)
        self.workers = max(self.workers, len(self.running))
        return self.running[name]

    def retry(self, name: str) -> None:
        """A first try is over that says nothing of the export; it waits again."""
        one = self.running.pop(name, None)
        self.waiting[name] = one.num_tries if one is not None else 1

    def end(self, name: str, outcome: Outcome, now_s: float) -> None:
        self.waiting.pop(name, None)
        self.outcomes[outcome] += 1
        one = self.running.pop(name, None)
        if one is not None and outcome in _TELLING:
            self._finished.append(Timing(now_s - one.began_s, self.expected_s.get(name)))

    def see_memory(self, rss_bytes: Mapping[str, int]) -> None:
        for name, size in rss_bytes.items():
            if name in self.running:
                self.running[name].rss_bytes = size

    def estimate(self, now_s: float) -> Estimate | None:
        """The time left. Made anew as often as its cost allows; in between it grows shorter with the time."""
        if not self.running and not self.waiting:
            return Estimate(0.0, 0.0)
        if self._estimated_s is None or now_s >= self._next_estimate_s:
            return self._estimate_anew(now_s)
        past_s = now_s - self._estimated_s
        if self._estimate is None:
            return None
        high_s = self._estimate.high_s
        return Estimate(max(0.0, self._estimate.low_s - past_s), None if high_s is None else max(0.0, high_s - past_s))

    def _estimate_anew(self, now_s: float) -> Estimate | None:
        self._estimate = estimate_rest(
            expected_s=self.expected_s,
            finished=self._finished,
            running_s={name: now_s - one.began_s for name, one in list(self.running.items())},
            waiting=list(self.waiting),
            workers=self.workers,
        )
        self._estimated_s = now_s
        self._next_estimate_s = now_s + _AGE_S * (len(self.running) + len(self.waiting))
        return self._estimate
