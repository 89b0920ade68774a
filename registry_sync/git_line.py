"""Says in one line what a person has to commit to git: DVC writes small files there, and leaves that to them."""

import os
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from registry_sync.plot_data import place_of_plot_data
from registry_sync.release_manifest import RELEASES

__all__ = ["suggest_commit"]

# From here on the files of one folder are named by a pattern, not each by itself.
_MAX_FILES = 3


def suggest_commit(root: Path | None, subject: str, exports: Sequence[Path], metrics: str) -> str | None:
    """`git add ... && git commit -m ...` for what git does not have yet; None where there is nothing, or no git.

    What earlier batches left is in it: dvc.lock is one file for all.

    Args:
        root: Of the DVC repository, if there is one.
        subject: What the commit is.
        exports: Directories of published ones.
        metrics: The folder with a file of numbers for each export.
    """
    folders = sorted({os.path.dirname(export) for export in exports})  # noqa: PTH120  (no "." for none)
    changed = _find_changed(
        [
            *sorted({"dvc.lock", os.path.relpath(root / "dvc.lock") if root is not None else "dvc.lock"}),
            *(f":(glob){Path(folder, '*.dvc')}" for folder in folders),
            # DVC writes it, unless git ignores the exports already.
            *(str(Path(folder, ".gitignore")) for folder in folders),
            f":(glob){Path(metrics, '*.json')}",
            str(place_of_plot_data(metrics)),
            # Of a release itself; what begins with a dot is a lock, or not finished.
            *(f":(glob){RELEASES}/[!.]*{end}" for end in ("", "/**")),
        ]
    )
    if not changed:
        return None
    # A release is added as a whole.
    depth = len(RELEASES.parts) + 1
    inside = {path: Path(*path.parts[:depth]) for path in changed if path.is_relative_to(RELEASES)}
    changed = list(dict.fromkeys(inside.get(path, path) for path in changed))
    paths = " ".join(shlex.quote(text) for text in _shorten(changed))
    return f"git:    git add {paths} && git commit -m {shlex.quote(subject)}"


def _find_changed(patterns: Sequence[str]) -> list[Path]:
    """Files that git would commit, new or changed, and not ignored; relative to the working directory."""
    try:
        top = Path(_call_git("rev-parse", "--show-toplevel").removesuffix("\n"))
        # git refuses all if one is outside.
        inside = [each for each in patterns if Path(each.removeprefix(":(glob)")).resolve().is_relative_to(top)]
        told = _call_git("status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--", *inside)
    except (OSError, subprocess.SubprocessError):
        return []
    changed = [top / entry[3:] for entry in told.split("\0") if entry]
    return [Path(os.path.relpath(path)) for path in sorted(changed) if path.exists()]


def _call_git(*arguments: str) -> str:
    # The line is not worth a long wait for a slow disk. Without its lock, git is in nobody's way.
    command = ["git", "--no-optional-locks", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout  # noqa: S603


def _shorten(paths: Iterable[Path]) -> list[str]:
    """As arguments of `git add`; many files of one kind as a pattern, which git itself reads."""
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path in paths:
        groups.setdefault((path.parent, path.suffix), []).append(path)
    shortened: list[str] = []
    for (folder, suffix), members in groups.items():
        is_many = len(members) > _MAX_FILES
        shortened += [f"{folder}/*{suffix}"] if is_many else [str(path) for path in members]
    return shortened
