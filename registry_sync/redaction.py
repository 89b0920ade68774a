"""Keeps passwords out of records, messages and tags."""

import re

__all__ = ["redact"]

_USERINFO = re.compile(r"//[^/@\s]+@")


def redact(text: str) -> str:
    """The text without the user names and passwords of its URLs: `http://me:secret@host` to `http://host`."""
    return _USERINFO.sub("//", text)
