"""Runs one export on a node: what a Ray task does there.

It is light: it watches over a worker, as the batch's own process does on one machine, with the same code, so that
time-outs, logs, stack dumps and the evidence of a kill for memory are the same everywhere. The fork server that it
starts stays for the next export that Ray gives this process. It never imports torch.
"""

import atexit
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path

import ray

import exporter
from exporter.directory import ExportDirectory, hash_parts
from exporter.errors import WorkerError
from exporter.files import hash_file
from exporter.provenance import COMMIT_VARIABLE
from exporter.versions import library_versions
from pipeline.executor import Ended, Notice, Pulse, Started, Task
from pipeline.local_executor import LocalExecutor
from pipeline.locked_folder import LockedFolder
from pipeline.on_ray.messages import Beat, Began, Finished, Job, Lacks, Parcel, Piece, Said, Unfit
from pipeline.on_ray.project import find_lacking, is_portable

__all__ = ["describe_versions", "inspect_node", "supervise"]

_PREFIX = "modelpress-node-"
_PIECE_BYTES = 2 << 20
_BEAT_S = 1.0


@cache
def describe_versions() -> dict[str, str]:
    """What decides the bytes of an export, by name: library versions, and the exporter's own code."""
    package = Path(exporter.__file__).parent
    files = {str(path.relative_to(package)): hash_file(path) for path in sorted(package.rglob("*.py"))}
    return {**library_versions(), "modelpress's code": hash_parts(files)[:12]}


def inspect_node(job: Job) -> str:
    """Why this node must not run exports of a job, in words; empty if it may."""
    return _explain_difference(job.versions)


def supervise(job: Job, parcel: Parcel, data: Mapping[str, list[object]]) -> Iterator[Said]:
    """Run one export, and say how it goes.

    Args:
        job: Of all exports.
        parcel: The export.
        data: References to the pieces of files that a node said it lacks, by their names in the spec.
    """
    if reason := _explain_difference(job.versions):
        yield Unfit(f"{socket.gethostname()} must not export: {reason}")
        return
    _settle(job)
    if not job.is_here and parcel.data:
        folder = _own_project() / job.directory
        lacking = find_lacking(parcel.data, folder, _known_files())
        for name in filter(is_portable, set(lacking) & set(data)):
            _write_pieces(folder / name, data[name])
        lacking = find_lacking(list(lacking.values()), folder, _known_files())
        if lacking:
            yield Lacks(tuple(lacking), socket.gethostname())
            return
    with _find_directory(job, parcel) as (directory, is_shared):
        try:
            ended = yield from _run(job, parcel, directory, is_shared=is_shared)
        except WorkerError as error:
            yield Unfit(f"{socket.gethostname()}: {error}")
            return
        if not is_shared:
            yield from _read_pieces(directory, set(parcel.files))
        yield Finished(ended, ExportDirectory(directory).result.exists())


def _explain_difference(wanted: Mapping[str, str]) -> str:
    """What of the batch's machine this one has not; exports of different versions are different exports."""
    found = describe_versions()
    parts = [
        f"it has {name} {found.get(name) or 'nowhere'}, and the batch's machine {version or 'nowhere'}"
        for name, version in wanted.items()
        if found.get(name) != version
    ]
    return "; ".join(parts)


@cache
def _settle_once() -> None:
    # multiprocessing would import Ray's own script in each worker.
    vars(sys.modules["__main__"]).pop("__file__", None)
    # Ray's debugger; breakpoint() in a model's code is to be what it is elsewhere.
    os.environ.pop("PYTHONBREAKPOINT", None)
    # Ray offers its processes to be killed first. The first is to be a worker of ours, which leaves one to tell of it.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("0")


def _settle(job: Job) -> None:
    """Make this process one that a worker can be forked from: the project's folder, and its modules."""
    _settle_once()
    if job.is_here:
        os.chdir(job.directory)
        sys.path[:] = job.path
        return
    project = _own_project()
    os.chdir(project / job.directory)
    sys.path[:] = [*(str(project / entry) for entry in job.path), *_installed_path()]
    os.environ[COMMIT_VARIABLE] = job.commit


@cache
def _installed_path() -> list[str]:
    """Python's own path, without what Ray puts before it: its copies of libraries, and the unpacked project."""
    rays = Path(ray.__file__).parent
    return [entry for entry in sys.path if not Path(entry).is_relative_to(rays) and not _is_within_project(entry)]


def _is_within_project(entry: str) -> bool:
    return entry in {"", "."} or Path(entry).is_relative_to(_sent_project())


@cache
def _sent_project() -> Path:
    """Where Ray has put the project: it is the working directory that this process starts in."""
    return Path.cwd()


@cache
def _own_folder() -> Path:
    folder = LockedFolder(Path(tempfile.gettempdir()), _PREFIX)
    atexit.register(folder.remove)
    return folder.path


@cache
def _own_project() -> Path:
    """A copy of the project that no other process writes to: data is put into it."""
    copy = _own_folder() / "project"
    shutil.copytree(_sent_project(), copy)
    return copy


@cache
def _known_files() -> dict[tuple[str, int, int], str]:
    return {}


def _write_pieces(path: Path, pieces: list[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # What lies there may be a link to a file that is not ours to write.
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        for piece in pieces:
            file.write(ray.get(piece))


@contextmanager
def _find_directory(job: Job, parcel: Parcel) -> Iterator[tuple[Path, bool]]:
    """The export's directory, and whether it is the one that the batch sees."""
    directory = parcel.task.directory
    if job.is_here or _is_shared(directory, parcel.token):
        yield directory, True
        return
    own = _own_folder() / secrets.token_hex(4) / parcel.task.id
    own.mkdir(parents=True)
    try:
        for name, content in parcel.files.items():
            (own / name).write_bytes(content)
        yield own, False
    finally:
        shutil.rmtree(own.parent, ignore_errors=True)


def _is_shared(directory: Path, token: str) -> bool:
    """Whether the directory is the batch's own, and can be written to from here."""
    probe = directory / f".{secrets.token_hex(8)}"
    try:
        if (directory / Parcel.TOKEN).read_text() != token:
            return False
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True


def _run(job: Job, parcel: Parcel, directory: Path, *, is_shared: bool) -> Generator[Said, None, Ended]:
    """Run a worker, and return how it ended."""
    task = Task(parcel.task.id, directory, on_gpu=parcel.task.on_gpu, preloads=parcel.task.preloads)
    executor = LocalExecutor(1, job.timeout_s, budget_bytes=0, num_cores=parcel.threads)
    ended: Ended | None = None
    last_beat = 0.0
    with closing(executor.run([task])) as events:
        for event in events:
            if isinstance(event, Started):
                yield Began()
            elif isinstance(event, Notice):
                yield Notice(f"{socket.gethostname()}: {event.text}")
            elif isinstance(event, Ended):
                ended = event
            elif isinstance(event, Pulse) and time.monotonic() - last_beat >= _BEAT_S:
                step = None if is_shared else ExportDirectory(directory).read_current_step()
                last_beat = time.monotonic()
                yield Beat(event.rss_bytes.get(task.id), step)
    if ended is None:
        raise RuntimeError(f"{task.id}: its worker ended without an end")
    return ended


def _read_pieces(directory: Path, known: set[str]) -> Iterator[Piece]:
    """All files that the export left, but for what was of use to it alone."""
    scratch = ExportDirectory(directory).scratch.path
    for path in sorted(directory.rglob("*")):
        inside = path.relative_to(directory)
        if inside.parts[0].startswith(".") or path.is_relative_to(scratch) or not path.is_file() or path.is_symlink():
            continue
        if str(inside) in known:
            continue
        with path.open("rb") as file:
            piece = file.read(_PIECE_BYTES)
            yield Piece(str(inside), piece)
            while piece := file.read(_PIECE_BYTES):
                yield Piece(str(inside), piece)
