"""Versions of what decides the bytes of an export, read without importing any of it."""

import platform
from functools import cache
from importlib import metadata

__all__ = ["library_versions"]

# Builds of a library that go by another name; the one with CUDA is imported as onnxruntime too.
_OTHER_NAMES = {"onnxruntime": "onnxruntime-gpu"}
_LIBRARIES = ("modelpress", "torch", "onnx", "onnxscript", "onnx_ir", "onnxruntime")


@cache
def library_versions() -> dict[str, str]:
    """Name to version, Python's included; a library that is not installed as a distribution has an empty one."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        versions[name] = _read_version(name)
        if not versions[name] and name in _OTHER_NAMES:
            versions[name] = _read_version(_OTHER_NAMES[name])
    return versions


def _read_version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
