"""The process that runs one export: a directory with spec.json in, a directory with result.json out.

It hands nothing back but files, so it does not matter who started it or where. It never publishes.
"""

import faulthandler
import logging
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from multiprocessing import forkserver, parent_process
from multiprocessing.connection import Connection
from pathlib import Path

from exporter.conductor import describe_result, run_export, write_result
from exporter.cuda import hide_gpus
from exporter.directory import ExportDirectory
from exporter.errors import FailureKind
from exporter.failures import is_storage_error, make_failure, put_first, tell_error
from exporter.lifeline import adopt_orphans, die_with_parent, offer_to_be_killed_first
from exporter.provenance import read_provenance
from exporter.spec import Device

__all__ = ["DIRECTORY_VARIABLE", "STATUS_STORAGE", "run_worker"]

log = logging.getLogger(__name__)

# Names, in the environment of all that a worker starts, the worker's directory.
DIRECTORY_VARIABLE = "MODELPRESS_EXPORT_DIRECTORY"

# Exit statuses, as in sysexits.h: EX_IOERR where not even the result could be written, EX_SOFTWARE for a bug.
STATUS_STORAGE = 74
_STATUS_BUG = 70


def run_worker(path: str, threads: int, output: Connection) -> None:
    """Run the export whose spec lies in a directory, then end this process.

    Exit status 0 says only that a result was written; the result says how the export went.

    Args:
        path: The export's directory.
        threads: Of torch and ONNX Runtime.
        output: Takes what is printed; who started us writes it to the log.
    """
    directory = ExportDirectory(Path(path))
    _detach(directory, output)
    status = _STATUS_BUG
    try:
        status = _run(directory, threads)
    finally:
        # The model may have closed these.
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        # Skips a second of interpreter teardown, and whatever the model registered to run there.
        os._exit(status)


def _detach(directory: ExportDirectory, output: Connection) -> None:
    """Leave the parent's terminal and session: output goes to the log, Ctrl-C goes to the parent alone."""
    os.setsid()
    _die_with_the_batch()
    offer_to_be_killed_first()
    # While we run they are ours; the server would take them for those of a worker that is gone.
    adopt_orphans()
    # What the model starts inherits this, and is found by it if it outlives the worker.
    os.environ[DIRECTORY_VARIABLE] = str(directory.path)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Inherited too: Ray blocks SIGINT in its processes.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    for number, name in ((1, "stdout"), (2, "stderr")):
        setattr(
            sys, name, os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
        )
    # A copy of its own: the stacks at a crash, or at a time-out, reach the log even if the model closes fd 2.
    crash_log = os.fdopen(os.dup(output.fileno()), "w")
    faulthandler.enable(crash_log)
    faulthandler.register(signal.SIGUSR1, crash_log, all_threads=True)
    # Also where a package that was imported before the fork has set up logging its own way.
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=form, force=True)


def _die_with_the_batch() -> None:
    """Have the kernel kill this process when its parent, the fork server, is gone; that goes with the batch.

    The server ends when nobody holds the other end of its "alive" pipe any more. multiprocessing hands that end to
    each worker too, for workers of its own, and so a worker would keep the server, and thereby itself, alive.
    """
    die_with_parent()
    alive = getattr(forkserver._forkserver, "_forkserver_alive_fd", None)  # noqa: SLF001  (it has no public name)
    if alive is not None and parent_process() is not None:
        os.close(alive)
        forkserver._forkserver._forkserver_alive_fd = None  # type: ignore[attr-defined]  # noqa: SLF001


def _run(directory: ExportDirectory, threads: int) -> int:
    """Run the export and return the exit status; whatever the model's code raises ends here."""
    started = time.time()
    raised: BaseException | None = None
    try:
        _export(directory, threads)
    except BaseException as error:  # noqa: BLE001  (SystemExit and KeyboardInterrupt are the model's doing here)
        traceback.print_exc()
        raised = error
    try:
        if raised is not None:
            _write_failure(directory, raised, started)
        directory.current_step.unlink(missing_ok=True)
        directory.first_failure.unlink(missing_ok=True)
    except OSError:
        traceback.print_exc()
        return STATUS_STORAGE
    return 0


def _export(directory: ExportDirectory, threads: int) -> None:
    spec = directory.read_spec()
    if spec.export.device is Device.cpu:
        hide_gpus()
    log.info("export %s, process %d, %d threads", spec.id, os.getpid(), threads)
    result = run_export(spec, directory.path, threads=threads, on_step=lambda step: _note(directory, step.value))
    log.info("%s in %.2f s", result.status, result.duration_s)


def _note(directory: ExportDirectory, step: str) -> None:
    log.info("%s", step)
    directory.current_step.write_text(step)


def _write_failure(directory: ExportDirectory, error: BaseException, started: float) -> None:
    if not isinstance(error, Exception):
        kind = FailureKind.exited_early
    else:
        # The steps turn a model's exceptions into results; what comes through is the disk's fault or ours.
        kind = FailureKind.storage_error if is_storage_error(error) else FailureKind.internal_error
    failure = make_failure(directory.read_current_step(), kind, tell_error(error))
    failure = put_first(directory.read_first_failure(), failure)
    provenance = read_provenance(directory)
    write_result(directory, describe_result(directory.read_spec(), failure, started, provenance=provenance))
