"""The DVC repository around the working directory: the only place that knows DVC's own interface.

DVC is imported when the repository is opened. What it raises becomes a `SyncError` with a line for the user.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exporter.errors import ModelpressError, SyncError
from exporter.files import read_json
from exporter.plain_data import DataError
from registry_sync.commands import show_command

__all__ = ["DvcRepository", "find_repository", "is_inside_stage", "open_repository", "told"]

# Set by DVC for the command of a stage that it runs.
_INSIDE_DVC = "DVC_STAGE"
# The kinds of cache.type that give each place a file of its own.
_WHOLE_FILES = ("reflink", "copy")


def find_repository() -> Path | None:
    """The root of the DVC repository that the working directory is in; does not load DVC."""
    here = Path.cwd()
    return next((path for path in (here, *here.parents) if (path / ".dvc").is_dir()), None)


def is_inside_stage() -> bool:
    """Whether `dvc repro` runs us, and commits what we leave."""
    return _INSIDE_DVC in os.environ


class DvcRepository:
    """An open repository, which never puts links into the working directory, whatever its cache.type says.

    onnx refuses a model whose data file is a symbolic link, or has a second hard link.

    Args:
        repo: DVC's `Repo`.
        links: The cache.type of its config, if that allows links.
    """

    def __init__(self, repo: Any, links: str) -> None:
        self._repo = repo
        self.root = Path(repo.root_dir)
        self.links = links
        # What dvc.lock says of all stages, by the dvc.yaml beside it.
        self._locks: dict[str, dict[str, Any]] = {}

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold DVC's lock over several commands.

        Raises:
            SyncError: Another process holds it, for longer than DVC waits (3 seconds).
        """
        from dvc.repo import lock_repo

        with told(), lock_repo(self._repo):
            yield

    def find_outputs(self) -> dict[Path, list[Any]]:
        """DVC's outputs (`dvc.output.Output`) by their place; two at one place are a mistake of the user's."""
        found: dict[Path, list[Any]] = {}
        with told():
            for output in self._repo.index.outs:
                found.setdefault(Path(output.fs_path), []).append(output)
        return found

    def commit(self, stage: Any) -> None:
        """`dvc commit --force` of what is in a stage's outputs now, up to dvc.lock, which `write_locks` writes."""
        with told():
            stage.save()
            stage.commit(relink=False)

    def read_lock(self, stage: Any) -> dict[str, Any]:
        """What dvc.lock says of a stage of dvc.yaml: of what it was made, and what it is; empty for nothing."""
        if stage.is_data_source:
            # Of a .dvc file, which has no name.
            return {}
        path = str(stage.dvcfile.path)
        if path not in self._locks:
            # Once for all stages: DVC's reader takes seconds for a few hundred.
            with told():
                self._locks[path] = stage.dvcfile.lockfile_contents.get("stages", {})
        return dict(self._locks[path].get(stage.name, {}))

    def restore_locks(self, entries: Sequence[tuple[Any, Mapping[str, Any]]]) -> None:
        """Let dvc.lock say of stages what it said of them when `read_lock` was asked."""
        from dvc.dvcfile import LOCK_FILE
        from dvc.utils.serialize import modify_yaml

        files: dict[Path, dict[str, Mapping[str, Any]]] = {}
        for stage, entry in entries:
            files.setdefault(Path(stage.dvcfile.path).with_name(LOCK_FILE), {})[stage.name] = entry
        with told():
            for path, own in files.items():
                with modify_yaml(str(path)) as data:
                    data.setdefault("schema", "2.0")
                    data.setdefault("stages", {}).update(own)

    def write_locks(self, stages: Sequence[Any]) -> None:
        """Write committed stages into dvc.lock, all in one go: DVC reads and writes the whole file for each, else."""
        files: dict[str, tuple[Any, list[Any]]] = {}
        for stage in stages:
            files.setdefault(stage.dvcfile.path, (stage.dvcfile, []))[1].append(stage)
        with told():
            for file, own in files.values():
                file.dump_stages(own, update_pipeline=False)

    def add(self, path: Path) -> None:
        """`dvc add`."""
        with told():
            self._repo.add([str(path)], relink=False)

    def require_remote(self, name: str | None) -> None:
        """Complain if there is no such remote, or no default one; `dvc fetch` would not."""
        with told():
            self._repo.cloud.get_remote(name)

    def push(self, paths: Sequence[Path], remote: str | None, jobs: int | None) -> int:
        """`dvc push`; returns how many files went there. Without paths: all."""
        with told():
            return int(self._repo.push(list(map(str, paths)) or None, remote=remote, jobs=jobs))

    def fetch(self, paths: Sequence[Path], remote: str | None, jobs: int | None) -> int:
        """`dvc fetch`: into the cache alone; returns how many files came. Without paths: all."""
        with told():
            return int(self._repo.fetch(list(map(str, paths)) or None, remote=remote, jobs=jobs))

    def fetch_objects(self, hashes: Sequence[str]) -> None:
        """Fetch objects from the default remote, as far as it has them; of a folder, that is the list of its files.

        Without a remote the cache is all there is.
        """
        from dvc.config import NoRemoteError
        from dvc_data.hashfile.hash_info import HashInfo

        with told():
            try:
                self._repo.cloud.pull([HashInfo("md5", value) for value in hashes])
            except NoRemoteError:
                return

    def check_out(self, path: Path) -> None:
        """`dvc checkout` of one output, from the cache; changes that DVC does not have are left, and an error."""
        with told():
            self._repo.checkout([str(path)])

    def is_cached(self, output: Any) -> bool:
        """Whether the cache has an output: a file, or the list of a folder's files."""
        with told():
            return Path(output.cache.oid_to_path(output.hash_info.value)).is_file()

    def find_objects(self, output: Any) -> dict[str, Path]:
        """The cache's files of an output that is a folder, by their names in it; whether they are there or not.

        Empty for a single file, and where the cache does not have the folder's list. The list itself is in it as "".
        """
        with told():
            hashed = output.hash_info
            if not hashed or not hashed.isdir or not output.use_cache:
                return {}
            place = Path(output.cache.oid_to_path(hashed.value))
            try:
                listed = _list_folder(output.cache, hashed.value, hashed.name)
            except DataError:
                # Damaged; its own name says so.
                listed = {}
            return {} if listed is None else {"": place, **listed}

    def list_folder(self, value: str) -> dict[str, Path] | None:
        """The cache's files of a folder by their names in it, there or not; None where their list is not there.

        Args:
            value: The folder's hash, as dvc.lock has it.

        Raises:
            DataError: The list is damaged.
        """
        with told():
            return _list_folder(self._repo.cache.local, value)

    def hash_folder(self, path: Path) -> str:
        """What DVC will call a folder as it is now; nothing goes into its cache, and its lock is not needed."""
        from dvc_data.hashfile.build import build

        with told():
            repo = self._repo
            _, _, tree = build(repo.cache.local, str(path), repo.fs, "md5", dry_run=True, ignore=repo.dvcignore)
            return str(tree.hash_info.value)

    def is_ignored(self, path: Path) -> bool:
        """Whether git ignores a file or, as DVC sees it, a folder above it; there DVC does not look for its files.

        To DVC's reader of .gitignore, `/exports/*` and `/exports/*/` stand for `exports/` itself too.
        """
        from scmrepo.git import Git

        with told():
            scm = self._repo.scm
            folders = [
                f"{folder}/" for folder in path.parents if folder != self.root and folder.is_relative_to(self.root)
            ]
            return isinstance(scm, Git) and any(scm.is_ignored(each) for each in (str(path), *folders))


@contextmanager
def open_repository() -> Iterator[DvcRepository]:
    """Open the repository that the working directory is in.

    Raises:
        SyncError: There is none, or DVC cannot open it.
    """
    root = find_repository()
    if root is None:
        raise SyncError(f"not a DVC repository: {Path.cwd()}; git init and dvc init, or go to where .dvc/ is")
    with told():
        from dvc.repo import Repo

        logging.getLogger("dvc").setLevel(logging.CRITICAL)
        repo = Repo(str(root))
        types = repo.config["cache"].get("type") or []
        links = ",".join(types) if set(types) - set(_WHOLE_FILES) else ""
        if links:
            repo.close()
            repo = Repo(str(root), config={"cache": {"type": list(_WHOLE_FILES)}})
    try:
        yield DvcRepository(repo, links)
    finally:
        repo.close()


@contextmanager
def told() -> Iterator[None]:
    """Turn what DVC raises in the body into a line for the user.

    Raises:
        SyncError: DVC failed.
    """
    try:
        yield
    except (ModelpressError, DataError):
        raise
    except Exception as error:
        raise SyncError(_explain(error)) from error


def _list_folder(cache: Any, value: str, kind: str = "md5") -> dict[str, Path] | None:
    place = Path(cache.oid_to_path(value))
    if not place.is_file():
        return None
    if hashlib.md5(place.read_bytes(), usedforsecurity=False).hexdigest() != value.removesuffix(".dir"):
        raise DataError(f"{place}: is damaged; without it, it is asked of the remote")
    try:
        return {entry["relpath"]: Path(cache.oid_to_path(entry[kind])) for entry in read_json(place)}
    except (LookupError, TypeError) as error:
        raise DataError(f"{place}: not a list of files") from error


def _explain(error: Exception) -> str:
    from dvc.config import NoRemoteError
    from dvc.lock import LockError
    from dvc.scm import SCMError

    dvc = show_command("dvc")
    if isinstance(error, LockError):
        return "DVC's lock is held by another process; is a dvc command at work?"
    if isinstance(error, NoRemoteError):
        return f"there is no DVC remote: {dvc} remote add -d NAME URL"
    if isinstance(error, SCMError) and "not a git repository" in str(error):
        return f"{error}, where DVC expects one: git init, or {dvc} config core.no_scm true"
    return str(error).removeprefix("config file error: ") or type(error).__name__
