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

    code = run(sys.argv)
    for stream in (sys.stdout, sys.stderr):
        # The reader of our output may have gone away; what we were asked to do is done.
        with contextlib.suppress(OSError):
            stream.flush()
    # With MLflow imported, the interpreter's own end takes most of a second.
    os._exit(code)


if __name__ == "__main__":
    main()
