"""Before anything starts: are the jobs sound together, and which of them is there work for?"""

import errno
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.cuda import find_device_problem
from exporter.errors import ConfigError, StorageError
from exporter.published import Published, read_published
from exporter.result import ExportResult, Status
from exporter.spec import Device, ExportSpec
from exporter.storage_faults import describe_fault
from exporter.suggestion import suggest
from pipeline.config import Config, ExecutorKind
from pipeline.fingerprint import Fingerprint, explain_change, start_fingerprint
from pipeline.hashes import Hashes
from pipeline.soundness import find_spec_problems
from pipeline.source_code import forget_sources
from registry_sync.release_options import require_sound

__all__ = ["Job", "PlannedExport", "Planner"]


@dataclass(frozen=True)
class Job:
    """One spec and the settings of the run it came with."""

    spec: ExportSpec
    config: Config


@dataclass(frozen=True)
class PlannedExport:
    """A spec and what is to be done about it."""

    spec: ExportSpec
    fingerprint: dict[str, str]
    # Why it has to be exported; empty if the published export is up to date.
    reason: str
    # The published result, if it is up to date.
    published: ExportResult | None = None


@dataclass(frozen=True)
class _Entry:
    spec: ExportSpec
    fingerprint: Fingerprint
    published: Published


class Planner:
    """Takes the jobs one by one, as they are composed, and says what is to be done when all are there.

    Large files are hashed in threads meanwhile.

    Args:
        settings: Of the first job; all others have to agree with it on the run (executor, tracking, output).

    Raises:
        ConfigError: No run can have these settings.
    """

    def __init__(self, settings: Config) -> None:
        _require_possible(settings)
        self._settings = settings
        self._exports = Path(settings.output.exports)
        self._hashes = Hashes()
        self._entries: list[_Entry] = []
        self._ids: dict[str, str] = {}
        self._models: list[str] = []
        self._needs_device = False
        # Kept until the last job is there: a person wants to hear of all problems at once.
        self._problems: list[str] = []
        self._obstacles: list[str] = []
        forget_sources()

    def add(self, job: Job) -> bool:
        """Take one more job.

        Returns:
            Whether it is known already that there is work for it. What looks up to date may still turn out to be
            damaged, or to depend on a large file that has changed.
        """
        spec = job.spec
        self._models.append(spec.model.name)
        problems = [
            *self._find_differences(job.config),
            *self._find_duplicates(spec),
            *self._find_device_problems(spec),
        ]
        published = read_published(self._exports / spec.id)
        self._obstacles.extend(filter(None, [published.obstacle]))
        try:
            problems.extend(find_spec_problems(spec))
            self._problems.extend(problems)
            if problems or published.obstacle:
                return False
            entry = _Entry(spec, start_fingerprint(spec, self._hashes), published)
        except OSError as error:
            self._blame(spec, error)
            return False
        self._entries.append(entry)
        is_due = bool(published.lack) or self._settings.force or entry.fingerprint.differs_from(published.fingerprint)
        if not is_due and published.result is not None:
            for record in published.result.files:
                self._hashes.start(published.directory.path / record.path)
        return is_due

    def finish(self) -> list[PlannedExport]:
        """The plan, in the order of the jobs.

        Raises:
            ConfigError: The jobs contradict each other, or one is unsound; each problem is a line.
            StorageError: What stands at an export's place must not be replaced; each such place is a line.
        """
        self._problems.extend(self._find_strangers())
        self._raise_problems()
        fingerprints = []
        for entry in self._entries:
            try:
                # Waits for what is still being hashed.
                fingerprints.append(entry.fingerprint.finish())
            except OSError as error:
                self._blame(entry.spec, error)
        self._raise_problems()
        pairs = zip(self._entries, fingerprints, strict=True)
        planned = [self._settle(entry, parts, self._hashes) for entry, parts in pairs]
        self._hashes.close()
        return planned

    def _raise_problems(self) -> None:
        lines = [*dict.fromkeys(self._problems), *dict.fromkeys(self._obstacles)]
        if self._problems:
            raise ConfigError("\n".join(lines))
        if self._obstacles:
            # Not the config is wrong but the disk's content: on another machine the same command is right.
            raise StorageError("\n".join(lines))

    def _blame(self, spec: ExportSpec, error: OSError) -> None:
        """Take down that a file which the spec names cannot be read."""
        # A file that we may not read was named by mistake, or needs other permissions; a broken disk is no such thing.
        lines = self._problems if error.errno in (errno.EACCES, errno.EPERM) else self._obstacles
        lines.append(f"{spec.model.name}: cannot read what it is made of: {describe_fault(error)}")

    def _find_differences(self, config: Config) -> Iterator[str]:
        for name in ("executor", "tracking", "output", "release", "force", "explain"):
            if getattr(config, name) != getattr(self._settings, name):
                yield f"{name}: differs between the jobs of the sweep; it holds for a whole batch"

    def _find_duplicates(self, spec: ExportSpec) -> Iterator[str]:
        # File systems that fold case would give both one directory.
        folded = spec.id.casefold()
        if folded in self._ids:
            yield f"id: two exports are named {spec.id!r}; sweep a value only once, or set id=NAME for one of them"
        self._ids[folded] = spec.id

    def _find_device_problems(self, spec: ExportSpec) -> Iterator[str]:
        # Of the machine, not of a model: once is enough. Of other machines, the executor asks.
        if self._settings.executor.kind is not ExecutorKind.local:
            return
        if spec.export.device is not Device.cpu and not self._needs_device:
            self._needs_device = True
            yield from filter(None, [find_device_problem(spec)])

    def _find_strangers(self) -> Iterator[str]:
        release = self._settings.release
        if release is not None and release.models and set(self._models) != set(release.models):
            wrong = sorted(set(self._models) ^ set(release.models))
            yield (
                f"release: {release.name!r} is {len(release.models)} models, and this run is not of those "
                f"(differs in {', '.join(wrong)}); leave out +release or +model"
            )
        for name in release.accept if release is not None else []:
            if name not in self._ids.values():
                near = suggest(name, self._ids.values())
                meant = f"; did you mean {near!r}?" if near else ""
                yield f"release.accept: no export of this batch is called {name!r}{meant}"

    def _settle(self, entry: _Entry, parts: dict[str, str], hashes: Hashes) -> PlannedExport:
        published = entry.published
        last = published.result
        reason = published.lack or ("force=true" if self._settings.force else "")
        reason = reason or explain_change(published.fingerprint, parts)
        if not reason and last is not None:
            damaged = published.directory.damaged_files(last, hashes.of_file)
            if damaged and (now := read_published(published.directory.path)).result != last:
                # Another run has published it anew since; so we are the explanation, for a batch holds the lock.
                return self._settle(replace(entry, published=now), parts, Hashes())
            if damaged:
                reason = f"published bytes changed: {', '.join(damaged)}"
            elif last.status is not Status.passed:
                reason = "the published export did not pass"
        return PlannedExport(entry.spec, parts, reason, None if reason else last)


def _require_possible(settings: Config) -> None:
    if settings.release is not None:
        require_sound(settings.release)
    for name in ("address", "runtime_env"):
        if getattr(settings.executor, name) and settings.executor.kind is not ExecutorKind.ray:
            raise ConfigError(f"executor.{name}: is for executor=ray alone")
    if settings.executor.workers is not None and settings.executor.workers < 1:
        raise ConfigError(f"executor.workers: {settings.executor.workers} must be at least 1")
    if not 0 < settings.executor.timeout_s < float("inf"):
        raise ConfigError(f"executor.timeout_s: {settings.executor.timeout_s} must be more than 0")
