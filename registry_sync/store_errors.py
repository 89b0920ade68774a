"""What went wrong with MLflow, in one line that a user can act on, and whether it may pass by itself."""

import re
import sqlite3

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import DBAPIError

from registry_sync.redaction import redact

__all__ = ["describe_error", "is_transient"]

# Timed out, too many requests, and a server or a gateway in trouble.
_TRANSIENT = {408, 429, 500, 502, 503, 504}
# Something else than MLflow answered: a login page, a proxy, the wrong port.
_NOT_MLFLOW = "not in a valid JSON format"
_HINTS = {
    401: "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    403: "the server refuses this user, or this host name (mlflow server --allowed-hosts)",
}
_MAX_LENGTH = 300
# What requests and urllib3 wrap around the one line that says it.
_CAUSE = re.compile(r"\(Caused by \w+\((.*)\)\)")


def is_transient(error: Exception, *, remote: bool) -> bool:
    """Whether the same call may succeed later.

    Args:
        error: What it raised.
        remote: Whether the store is a server. A database in a file is in trouble for a moment only while another
            process writes to it.
    """
    status = _read_status(error)
    if isinstance(error, DBAPIError):
        # From a database's server: it is away, or another process is making the tables too, which it does not finish
        # if it comes second. SQLite's errors are about the file.
        return not isinstance(error.orig, sqlite3.Error)
    if status is None:
        return isinstance(error, ConnectionError | TimeoutError)
    if _NOT_MLFLOW in str(error):
        return False
    return status in _TRANSIENT if remote else status == 503


def describe_error(error: Exception) -> str:
    """One line without credentials, with a hint where one is known."""
    text = str(error) or type(error).__name__
    page = re.search(r"<!doctype|<html", text, re.IGNORECASE)
    if page:
        text = text[: page.start()].rstrip(" ,.:'\"") + ": an HTML page"
    if cause := _CAUSE.search(text):
        text = f"{text[: cause.start()].split(' failed with exception ')[0]}: {_last_part(cause[1])}"
    line = redact(" ".join(text.split()))
    if not isinstance(error, MlflowException):
        line = f"{type(error).__name__}: {line}"
    if isinstance(error, ModuleNotFoundError):
        # As the package of the commonest is called; others have other names.
        return f"{line}; install what this database needs, for Postgres: pip install 'psycopg[binary]'"
    hint = "is that the address of an MLflow server?" if page or _NOT_MLFLOW in text else _find_hint(error)
    return f"{line[:_MAX_LENGTH]}; {hint}" if hint else line[:_MAX_LENGTH]


def _read_status(error: Exception) -> int | None:
    if isinstance(error, MlflowException):
        return int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    # requests.HTTPError, which comes through as it is from the transfer of files.
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _find_hint(error: Exception) -> str:
    status = _read_status(error)
    return _HINTS.get(status, "") if status is not None else ""


def _last_part(cause: str) -> str:
    """`"HTTPConnection(host=..., port=1): Failed to ...: [Errno 111] Connection refused"` to its last part."""
    return cause.strip("'\"").rsplit(": ", 1)[-1]
