"""Source files of a user's project."""

import textwrap
from pathlib import Path

__all__ = ["write_source"]


def write_source(path: Path, text: str) -> Path:
    """Write a file, and the folders that it is in; the text may be indented as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path
