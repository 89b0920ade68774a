"""Versions of what decides the bytes of an export, read without importing any of it."""

import platform
from functools import cache
from importlib import metadata

__all__ = ["library_versions"]

_LIBRARIES = ("modelpress", "torch", "onnx", "onnxscript", "onnx_ir", "onnxruntime")


@cache
def library_versions() -> dict[str, str]:
    """Name to version, Python's included; a library that is not installed as a distribution has an empty one."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = ""
    return versions
