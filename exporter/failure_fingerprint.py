"""A short hash that is the same for the same failure, whatever the run, the machine and the sizes.

It counts failures of one cause over many models and nights. Not the fingerprint of an export (pipeline.fingerprint),
which says what an export depends on.
"""

import hashlib
import re
from collections.abc import Sequence

from exporter.errors import FailureKind

__all__ = ["normalize_message", "take_failure_fingerprint"]

# In this order: a path may hold digits, an address is a number.
_REPLACEMENTS = (
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    (re.compile(r"\b0x[0-9a-fA-F]+"), "<address>"),
    # Two parts at least, so that "input/output" in a sentence stays.
    (re.compile(r"(?:[A-Za-z]:)?(?:~|\.{1,2})?(?:[\\/][\w.@+~-]+){2,}[\\/]?"), "<path>"),
    (re.compile(r"\b(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{8,}\b"), "<hash>"),
    # torch's symbols for sizes: s77, u0.
    (re.compile(r"\b[su]\d+\b"), "#"),
    # Digits in names too: add_3 and add_17 are one node in two versions of a model.
    (re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"), "#"),
    # Lists of sizes of any length.
    (re.compile(r"#(?:\s*[,x*]\s*#)+"), "#"),
    (re.compile(r"\s+"), " "),
)
# Torch's messages go on with advice and stacks; their beginnings tell them apart.
_MAX_LENGTH = 200
_HASH_LENGTH = 12


def take_failure_fingerprint(kind: FailureKind, message: str, ops: Sequence[str] = ()) -> str:
    """Twelve hexadecimal digits for the kind, the message without what varies, and the operators."""
    # Where the operators are known, the message has nothing to add: it names them, in an order of its own.
    text = "" if ops else normalize_message(message)
    parts = "\0".join((kind.value, text, *sorted(ops)))
    return hashlib.sha256(parts.encode("utf-8", "backslashreplace")).hexdigest()[:_HASH_LENGTH]


def normalize_message(message: str) -> str:
    """The message without paths, addresses, numbers, sizes and colours, cut to its beginning."""
    for pattern, replacement in _REPLACEMENTS:
        message = pattern.sub(replacement, message)
    return message.strip()[:_MAX_LENGTH]
