"""The command `python -m exporter.pages`: writes report.html of exports on disk again, from their results."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from exporter.directory import ExportDirectory
from exporter.files import write_text
from exporter.pages.report_page import render_stored_page

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m exporter.pages", description=__doc__)
    parser.add_argument("exports", nargs="+", type=Path, metavar="EXPORT", help="directories with a result.json")
    for path in parser.parse_args(arguments).exports:
        directory = ExportDirectory(path)
        if not path.is_dir():
            parser.error(f"{path}: no such directory")
        try:
            write_text(directory.page, render_stored_page(directory))
        except OSError as error:
            parser.error(f"{error.filename or directory.page}: {error.strerror or error}")
        print(directory.page)


if __name__ == "__main__":
    main()
