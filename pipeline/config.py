"""The typed schema of the whole config, and the way from a composed config to specs.

Hydra composes; this module refuses what Hydra lets through. A key added with `+` lands in the composed config
whatever its name, so each composed config is merged anew onto the schema, which knows every key.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from exporter.errors import ConfigError
from exporter.plain_data import DataError, from_plain
from exporter.repeats import expand_repeats
from exporter.spec import ExportOptions, ExportSpec, ModelSpec, ParityOptions, Precision
from exporter.validation import find_problems
from pipeline.config_errors import explain_omegaconf_error
from pipeline.naming import name_export
from registry_sync.options import TrackingOptions
from registry_sync.release_options import ReleaseOptions

__all__ = [
    "CONF_DIR",
    "Config",
    "ExecutorKind",
    "ExecutorOptions",
    "OutputOptions",
    "compose_spec",
    "read_config",
]

_NO_MODEL = (
    "no model: say which with +model=NAME (a file of conf/model, or of model/ in your --config-dir), "
    "for example +model=mlp"
)

CONF_DIR = Path(__file__).resolve().parent.parent / "conf"


def _required(cls: type) -> Any:
    """A section whose required keys are missing until a config file or the command line gives them."""
    return field(default_factory=lambda: OmegaConf.structured(cls))


class ExecutorKind(StrEnum):
    """What runs the workers."""

    local = "local"
    # Needs the extra `ray`; docs/ray.md.
    ray = "ray"


@dataclass
class ExecutorOptions:
    """Who runs the workers."""

    kind: ExecutorKind = ExecutorKind.local
    # Exports at a time; null: one for each core this process may use, or as many as the cluster holds.
    workers: int | None = None
    # An export that takes longer is ended, in seconds.
    timeout_s: float = 1800.0
    # What all workers together may be expected to need, for example 12GiB; null: most of what is free at the start.
    # On a cluster: those on one node; null: what Ray says that the node has.
    memory_budget: str | None = None
    # Of a Ray cluster: auto, HOST:PORT (on one of its nodes) or ray://HOST:PORT (from outside); null: one is started
    # on this machine, for this run.
    address: str | None = None
    # Ray's runtime environment for the nodes, for example {env_vars: {HF_HUB_OFFLINE: "1"}}.
    runtime_env: dict[str, Any] = field(default_factory=dict)


@dataclass
class OutputOptions:
    """Where files go, relative to the working directory."""

    exports: str = "exports"
    runs: str = "runs"
    # One file for each export, for `dvc metrics`.
    metrics: str = "metrics"


@dataclass
class Config:
    """One job: one model with all its settings."""

    # Names the directory under exports/; null: the model's name and what was overridden.
    id: str | None = None
    model: ModelSpec = _required(ModelSpec)  # noqa: RUF009  (returns a dataclass field)
    precision: Precision = _required(Precision)  # noqa: RUF009
    export: ExportOptions = field(default_factory=ExportOptions)
    parity: ParityOptions = field(default_factory=ParityOptions)
    executor: ExecutorOptions = field(default_factory=ExecutorOptions)
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
    # A batch that ends in a release; conf/release/ has one file for each.
    release: ReleaseOptions | None = None
    # Export again even where the published export is up to date.
    force: bool = False
    # Say what would be exported and why; run nothing, write nothing.
    explain: bool = False
    # Export nothing; say how far the last run of these exports is, or what became of it.
    status: bool = False


def register() -> None:
    """Make the schema known to Hydra, and the resolver that turns a list into a sweep."""
    # Without its types: Hydra refuses to add an input to a typed dict. `read_config` is the judge of types.
    untyped = OmegaConf.to_container(OmegaConf.structured(Config), enum_to_str=True)
    ConfigStore.instance().store(name="schema", node=untyped)
    OmegaConf.register_new_resolver("sweep", ",".join, replace=True)


def read_config(composed: DictConfig) -> Config:
    """Hold a composed config against the schema.

    Raises:
        ConfigError: A key is unknown, missing or has the wrong type, or an interpolation leads nowhere.
    """
    try:
        plain = OmegaConf.to_container(composed, resolve=True)
        if not isinstance(plain, dict):
            raise ConfigError(f"the config is a {type(plain).__name__}, not a mapping")
        return _read_exactly(plain) or _read_leniently(plain)
    except OmegaConfBaseException as error:
        raise ConfigError(explain_omegaconf_error(error, Config)) from error


def _read_exactly(plain: dict[Any, Any]) -> Config | None:
    """The config, if every value already is what the schema asks for; None where OmegaConf has to judge.

    OmegaConf comes to the same config, in 25 ms where this takes half of one; a test compares them.
    """
    if not _is_final(plain):
        return None
    try:
        config = from_plain(Config, plain)
    except DataError:
        return None
    # Where a section is left out, its default is OmegaConf's.
    return config if isinstance(config.model, ModelSpec) and isinstance(config.precision, Precision) else None


def _is_final(node: object) -> bool:
    """Whether data means the same to OmegaConf as to us: no `???`, nothing that is left to interpolate."""
    if isinstance(node, dict):
        return all(isinstance(key, str) and _is_final(value) for key, value in node.items())
    if isinstance(node, list):
        return all(map(_is_final, node))
    if isinstance(node, str):
        return node != "???" and "${" not in node
    return node is None or isinstance(node, bool | int | float)


def _read_leniently(plain: dict[Any, Any]) -> Config:
    """The config as OmegaConf reads it, which converts what can be converted and says what cannot."""
    _require_sections(plain)
    merged = OmegaConf.merge(_schema(), plain)
    if OmegaConf.is_missing(merged.model, "name") and OmegaConf.is_missing(merged.model, "inputs"):
        raise ConfigError(_NO_MODEL)
    config = OmegaConf.to_object(merged)
    assert isinstance(config, Config)
    return config


@cache
def _schema() -> DictConfig:
    """Only to be read: all configs are held against the same one."""
    schema = OmegaConf.structured(Config)
    assert isinstance(schema, DictConfig)
    return schema


def _require_sections(plain: dict[Any, Any]) -> None:
    # OmegaConf's own message for this does not say which section it is.
    schema = _schema()
    for name, value in plain.items():
        if name in schema and OmegaConf.is_dict(schema[name]) and not isinstance(value, dict):
            keys = ", ".join(f"{name}.{key}" for key in schema[name])
            raise ConfigError(f"{name}: {value!r} is a single value; set one of its keys: {keys}")


def compose_spec(config: Config, overrides: Sequence[str]) -> ExportSpec:
    """The spec that a job's config asks for.

    Args:
        config: From `read_config`.
        overrides: The job's own, as on the command line; they name the export where the config does not.

    Raises:
        ConfigError: The spec contradicts itself.
    """
    spec = ExportSpec(
        id=config.id or name_export(config.model.name, overrides),
        model=expand_repeats(config.model),
        precision=config.precision,
        export=config.export,
        parity=config.parity,
    )
    problems = list(find_problems(spec))
    if problems:
        raise ConfigError("\n".join(f"{spec.model.name}: {problem}" for problem in problems))
    return spec
