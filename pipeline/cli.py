"""The command line: Hydra composes, the batch runs, every error becomes a short message and an exit code."""

import io
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from itertools import chain
from pathlib import Path

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from exporter.errors import ConfigError, ExitCode, ModelpressError
from exporter.storage_faults import describe_fault, is_fault
from pipeline.batch import Job, run_batch
from pipeline.config import CONF_DIR, Config, compose_spec, read_config, register
from pipeline.config_errors import explain_hydra_error, explain_omegaconf_error, explain_yaml_error
from pipeline.explanation import explain_jobs
from pipeline.interruption import Stopped
from registry_sync.redaction import redact

__all__ = ["run"]

_MAX_LINES = 12


def run(argv: Sequence[str]) -> ExitCode:
    """Carry out one command line.

    Args:
        argv: With the program's name first, as `sys.argv`.

    Returns:
        The exit code; all messages are printed by then.
    """
    try:
        return _run(argv)
    except ModelpressError as error:
        return _complain(str(error), error.exit_code)
    except HydraException as error:
        return _complain(explain_hydra_error(error, Config), ExitCode.CONFIG)
    except yaml.YAMLError as error:
        return _complain(explain_yaml_error(error), ExitCode.CONFIG)
    except OmegaConfBaseException as error:
        return _complain(explain_omegaconf_error(error, Config), ExitCode.CONFIG)
    except SystemExit as error:
        # argparse and --help.
        return ExitCode.OK if error.code in (0, None) else ExitCode.CONFIG
    except Stopped as stopped:
        return stopped.code
    except KeyboardInterrupt:
        return _complain("interrupted", ExitCode.INTERRUPTED)
    except OSError as error:
        return _complain(describe_fault(error), ExitCode.STORAGE) if is_fault(error) else _report_bug(error)
    except Exception as error:  # noqa: BLE001  (the last resort: what comes here is our bug)
        return _report_bug(error)


def _run(argv: Sequence[str]) -> ExitCode:
    register()
    # As `python -m` does, so that the console script too finds modules that lie in the working directory.
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    composed = _compose(argv)
    if composed is None:
        # --help, --cfg and the like.
        return ExitCode.OK
    head = next(composed, None)
    composed = chain([] if head is None else [head], composed)
    if head is not None and head.get("status") is True:
        return _show_status(composed)
    jobs = _read_jobs(composed, argv)
    first = next(jobs)
    if first.config.explain:
        return explain_jobs(chain([first], jobs))
    return run_batch(chain([first], jobs), command=list(argv[1:]))


def _show_status(composed: Iterator[DictConfig]) -> ExitCode:
    from pipeline.status import find_run, show_status

    configs = list(composed)
    runs = Path(str(configs[0].output.runs))
    # Without a model, of whatever ran last.
    names = [] if OmegaConf.is_missing(configs[0].model, "name") else [_read_job(item).spec.id for item in configs]
    return ExitCode(show_status(find_run(runs, names)))


def _compose(argv: Sequence[str]) -> Iterator[DictConfig] | None:
    """Let Hydra read the command line; it then composes the config of each job, with its `hydra` node, when asked.

    None if the command line asks for something else than a run.
    """
    batches: list[Iterator[DictConfig]] = []

    # Called with one config, or by our launcher with the configs of a sweep. Only collects: what a task raises
    # Hydra announces in its own way.
    def collect(jobs: DictConfig | Iterator[DictConfig]) -> None:
        if isinstance(jobs, DictConfig):
            with open_dict(jobs):
                jobs["hydra"] = HydraConfig.get()
            jobs = iter([jobs])
        batches.append(jobs)

    entry = hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="config")
    with _hydra_raises(), _redacted_errors(), _arguments(_open_model_overrides(argv)):
        entry(collect)()
    return batches[0] if batches else None


def _read_jobs(composed: Iterator[DictConfig], argv: Sequence[str]) -> Iterator[Job]:
    """Each job as it is composed; what is wrong with one is raised when its turn comes."""
    is_empty = True
    for config in composed:
        is_empty = False
        yield _read_job(config)
    if is_empty:
        raise ConfigError(
            f"a sweep without jobs: a glob() that matches nothing, or an empty list, in {' '.join(argv[1:])}"
        )


def _read_job(composed: DictConfig) -> Job:
    overrides = [str(override) for override in composed.hydra.overrides.task]
    with open_dict(composed):
        del composed["hydra"]
    chosen = [override for override in overrides if re.match(r"\+?model=", override)]
    for override in chosen:
        if re.match(r"\+?model=\[", override):
            raise ConfigError(f"{override}: one job has one model; for several write -m +model=NAME,NAME")
    if chosen and OmegaConf.is_missing(composed.model, "name") and OmegaConf.is_missing(composed.model, "source"):
        raise ConfigError(f"{chosen[0]}: the model's file says neither name nor source; is it empty?")
    config = read_config(composed)
    return Job(spec=compose_spec(config, overrides), config=config)


def _open_model_overrides(argv: Sequence[str]) -> list[str]:
    """Let overrides reach every key of a model, those that its file does not mention and those that only it has.

    `model.inputs.x.dtype=int64` is refused by Hydra where the file leaves the dtype at its default; with `++` it is
    taken, and the schema is the judge. In a sweep Hydra first composes what all jobs share, without the swept
    `+model=a,b`, and there `model.source.hidden=32` has no place at all; a sweep over one value is the same override,
    left out of that first step.
    """
    is_sweep = any(argument in ("-m", "--multirun") or argument.startswith("+release=") for argument in argv)
    return [_open_override(argument, is_sweep=is_sweep) for argument in argv]


def _open_override(argument: str, *, is_sweep: bool) -> str:
    key, equals, value = argument.partition("=")
    if equals and key.lstrip("+").startswith("release."):
        return f"++{key.lstrip('+')}={value}"
    if not equals or not key.lstrip("+").startswith("model."):
        return argument
    forced = f"++{key.lstrip('+')}"
    is_single = not OverridesParser.create().parse_override(argument).is_sweep_override()
    return f"{forced}=choice({value})" if is_sweep and is_single else f"{forced}={value}"


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Let Hydra's errors come to us, where it would print them and exit with 1."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


@contextmanager
def _redacted_errors() -> Iterator[None]:
    """Hold what is written to stderr until the end: argparse, of which Hydra's is not ours, quotes the command line."""
    held = io.StringIO()
    try:
        with redirect_stderr(held):
            yield
    finally:
        with suppress(OSError):
            sys.stderr.write(redact(held.getvalue()))


@contextmanager
def _arguments(argv: Sequence[str]) -> Iterator[None]:
    before = sys.argv
    sys.argv = list(argv)
    try:
        yield
    finally:
        sys.argv = before


def _complain(message: str, code: ExitCode) -> ExitCode:
    # Some quote the command line, and with it a tracking URI.
    lines = redact(message).splitlines() or [""]
    shown = lines[:_MAX_LINES]
    if len(lines) > _MAX_LINES:
        shown.append(f"... and {len(lines) - _MAX_LINES} more")
    with suppress(OSError):
        sys.stderr.write("".join(f"modelpress: {line}\n" for line in shown))
    return code


def _report_bug(error: Exception) -> ExitCode:
    text = redact("".join(traceback.format_exception(error)))
    summary = f"{type(error).__name__}: {error}".splitlines()[0]
    try:
        handle, name = tempfile.mkstemp(prefix="modelpress-bug-", suffix=".txt", text=True)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        where = f"the traceback is in {name}"
    except OSError as obstacle:
        # Its last lines are the ones that matter.
        where = "\n".join([f"the traceback could not be written ({obstacle}):", *text.splitlines()[-8:]])
    return _complain(f"this is a bug in modelpress, please report it: {summary}\n{where}", ExitCode.BUG)
