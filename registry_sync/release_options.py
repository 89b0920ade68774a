"""What a release holds, and how far it may move from the one before: plain data that the config's `release` fills."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import date
from pathlib import Path

from exporter.errors import ConfigError
from registry_sync.release_manifest import require_release_name
from registry_sync.release_signature import require_signer

__all__ = ["KnownFailure", "ReleaseBudgets", "ReleaseOptions", "require_sound"]

_FINGERPRINT = re.compile(r"[0-9a-f]{12}")


@dataclass
class ReleaseBudgets:
    """How far a model may move from the last release in which it was accepted; null: as far as it will."""

    # Names, order, dtypes and shapes of inputs and outputs.
    may_change_signature: bool = False
    # A dim may hold for fewer sizes than it did, or be fixed.
    may_narrow_dims: bool = False
    may_change_opset: bool = False
    # Nodes that came or went, counted by operator, in percent of the nodes that there were.
    max_op_change_percent: float | None = 5.0
    # Parity's error, as a factor: in multiples of PyTorch's own where both releases know it (less than 1 counts as 1),
    # else max_abs_diff (less than atol counts as atol).
    max_parity_factor: float | None = 4.0
    # Peak memory of the export, above the worker's start.
    max_memory_growth_percent: float | None = 30.0
    # Growth of less is the allocator's, whatever share it is; in MiB.
    memory_slack_mib: float = 32.0
    # Latency in ONNX Runtime, as a factor. Loose: it depends on whatever else the machine does.
    max_latency_factor: float | None = 3.0
    # Slower by less than this is no matter, whatever factor it is; in seconds.
    latency_slack_s: float = 0.005
    # The files of the model, larger or smaller.
    max_size_change_percent: float | None = 5.0


@dataclass
class KnownFailure:
    """A failure that does not fail the release, for a while."""

    # The export's id; for most its model's name.
    export: str
    # The failure's: twelve hexadecimal digits, in report.md and on the release's page.
    fingerprint: str
    # Where it is worked on: a link.
    issue: str
    # The last day on which it is let pass, as 2026-12-31, in UTC.
    expires: str


@dataclass
class ReleaseOptions:
    """A batch that belongs together; conf/release/ has one file for each."""

    name: str
    models: list[str] = field(default_factory=list)
    # Names the directory under releases/; null: the day, as 2026.11.24, and with .2, .3 from the second of that day on.
    version: str | None = None
    budgets: ReleaseBudgets = field(default_factory=ReleaseBudgets)
    # Exports whose difference from the last release is intended, this once: on the command line, release.accept=[bert].
    accept: list[str] = field(default_factory=list)
    known_failures: list[KnownFailure] = field(default_factory=list)
    # A file with an elliptic-curve private key (PEM) that signs the release; needs the extra `sign`.
    sign_key: str | None = None


def require_sound(options: ReleaseOptions) -> None:
    """Find what no release can be made with.

    Raises:
        ConfigError: Each problem is a line.
    """
    require_release_name(options.name, "release.name")
    if options.version is not None:
        require_release_name(options.version, "release.version")
    problems = [*_check_budgets(options.budgets), *_check_known(options.known_failures)]
    if problems:
        raise ConfigError("\n".join(problems))
    if options.sign_key is not None:
        require_signer(Path(options.sign_key))


def _check_budgets(budgets: ReleaseBudgets) -> Iterator[str]:
    for one in fields(budgets):
        value = getattr(budgets, one.name)
        lowest = 1.0 if one.name.endswith("_factor") else 0.0
        # Written so that NaN is caught.
        if isinstance(value, float) and not value >= lowest:
            yield f"release.budgets.{one.name}: {value} must be at least {lowest:g}"


def _check_known(known: list[KnownFailure]) -> Iterator[str]:
    for index, one in enumerate(known):
        place = f"release.known_failures[{index}]"
        if not _FINGERPRINT.fullmatch(one.fingerprint):
            yield f"{place}.fingerprint: {one.fingerprint!r}: twelve hexadecimal digits, as report.md has them"
        if not one.issue.startswith(("https://", "http://")):
            yield f"{place}.issue: {one.issue!r} is no link"
        try:
            date.fromisoformat(one.expires)
        except ValueError:
            yield f"{place}.expires: {one.expires!r} is no date, for example 2026-12-31"
