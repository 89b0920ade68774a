"""Turns what Hydra and OmegaConf raise into a short message: the place, the value, the nearest right name."""

import dataclasses
import typing
from typing import Any

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from exporter.suggestion import suggest

__all__ = ["explain_hydra_error", "explain_omegaconf_error", "explain_yaml_error"]

_MAX_OPTIONS = 30


def explain_hydra_error(error: HydraException, schema: type) -> str:
    """A message for a config that Hydra could not compose."""
    if isinstance(error, MissingConfigException):
        return _explain_missing_config(error)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return explain_omegaconf_error(cause, schema)
        cause = cause.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, OverrideParseException):
        # Only some of these messages name the override.
        return f"{error.override}: {lines[0]}"
    return _teach_plus("\n".join(lines[:4]))


def explain_omegaconf_error(error: OmegaConfBaseException, schema: type) -> str:
    """A message for a config that does not fit the schema."""
    key = error.full_key or ""
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, MissingMandatoryValue):
        return f"{key}: is missing; it has no default"
    if isinstance(error, ConfigKeyError | ConfigAttributeError):
        return _explain_unknown_key(key, schema)
    if isinstance(error, ValidationError):
        return f"{key}: {first}"
    return f"{key}: {first}" if key else first


def explain_yaml_error(error: yaml.YAMLError) -> str:
    """A message for a config file that is not YAML: the file, the line, what is wrong there."""
    mark = getattr(error, "problem_mark", None)
    place = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark is not None else "a config file"
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{place}: {problem.strip()}"


def _explain_missing_config(error: MissingConfigException) -> str:
    wanted = (error.missing_cfg_file or "").rsplit("/", 1)
    options = list(error.options or [])
    if len(wanted) == 2 and options:
        group, name = wanted
        near = suggest(name, options)
        meant = f"did you mean {near!r}? " if near else ""
        listed = ", ".join(options[:_MAX_OPTIONS]) + (", ..." if len(options) > _MAX_OPTIONS else "")
        return f"{group}: there is no {name!r}; {meant}There are: {listed}"
    return str(error).splitlines()[0]


def _explain_unknown_key(key: str, schema: type) -> str:
    *path, last = key.split(".")
    place: Any = schema
    for name in path:
        place = _descend(place, name)
    known = [field.name for field in dataclasses.fields(place)] if dataclasses.is_dataclass(place) else []
    near = suggest(last, known)
    prefix = ".".join([*path, ""])
    if near:
        return f"{key}: unknown key; did you mean {prefix}{near}?"
    where = f"under {'.'.join(path)} " if path else ""
    return f"{key}: unknown key; {where}there are: {', '.join(known)}" if known else f"{key}: unknown key"


def _descend(place: Any, name: str) -> Any:
    """The type of a key of a dataclass, or of the values of a dict."""
    if dataclasses.is_dataclass(place):
        hint: Any = typing.get_type_hints(place).get(name)
        members = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        if type(None) in typing.get_args(hint) and members:
            hint = members[0]
        return hint
    if typing.get_origin(place) is dict:
        return typing.get_args(place)[1]
    return None


def _teach_plus(message: str) -> str:
    # `model` is no part of the defaults, so that +model=NAME works and a release can sweep it.
    if message.startswith("Could not override 'model'"):
        return "model=NAME: write +model=NAME, with a plus; no model is chosen by default"
    return message
