"""The command: `python -m pipeline`, and the console script `modelpress`.

Imports nothing at the top: multiprocessing imports this module anew in every worker.
"""

__all__ = ["main"]


def main() -> None:
    """Run the command line and end the process with its exit code."""
    import contextlib
    import os
    import sys

    from pipeline.cli import run

    _open_standard_streams()
    code = run(sys.argv)
    for stream in (sys.stdout, sys.stderr):
        # The reader of our output may have gone away; what we were asked to do is done.
        with contextlib.suppress(OSError):
            stream.flush()
    # With MLflow imported, the interpreter's own end takes most of a second.
    os._exit(code)


def _open_standard_streams() -> None:
    """Open what was closed before we began: the next file to be opened would take its number, and our output."""
    import os
    import sys

    last = 2
    while (number := os.open(os.devnull, os.O_RDWR)) <= last:
        pass
    os.close(number)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(last, "w")


if __name__ == "__main__":
    main()
