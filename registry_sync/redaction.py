"""Keeps passwords out of records, messages and tags."""

import os
import re

__all__ = ["redact"]

# `//me:secret@`, up to the last @ before a slash: a password may hold one, though it should not.
_USERINFO = re.compile(r"//[^/\s]*@")
# The same where somebody took it for a path, and two slashes for one.
_PATH_USERINFO = re.compile(r"(?<=[a-z]:/)[^/\s:]*:[^/\s]*@")
# The same with a slash in the password, which no parser takes for one, and every parser repeats in its complaint.
_ODD_USERINFO = re.compile(r"//[^/@\s:]*:(?!\d+[/?#])[^\s'\")\]]*@(?=[\w.\[])")
# `postgresql://host/db?user=me&password=secret`
_PARAMETER = re.compile(r"(?i)\b(password|passwd|pwd|token|secret|api_?key|access_?key)=[^&\s'\",;)]+")
# Where MLflow and its artifact stores read their credentials.
_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY")
# A shorter one is found in ordinary words.
_MIN_LENGTH = 4


def redact(text: str) -> str:
    """The text without the user names and passwords of its URLs: `http://me:secret@host` to `http://host`."""
    for name in _VARIABLES:
        secret = os.environ.get(name, "")
        if len(secret) >= _MIN_LENGTH:
            text = text.replace(secret, "***")
    text = _PATH_USERINFO.sub("", _ODD_USERINFO.sub("//", _USERINFO.sub("//", text)))
    return _PARAMETER.sub(r"\1=***", text)
