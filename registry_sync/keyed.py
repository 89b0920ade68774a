"""Things in MLflow that carry a key: never two with the same one, whatever gets lost on the way.

MLflow lets nobody choose an id, so nothing but a search tells whether a thing is there already.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Generic, TypeVar

from registry_sync.store import Store

__all__ = ["Keyed"]

T = TypeVar("T")


class Keyed(Generic[T]):
    """Runs, or models, of one batch.

    Args:
        store: Where they are.
        search: All of them that are there, keys first.
        rank: Of two with one key the lower stays: a finished one if there is one, then the same in every process.
        delete: Removes one.
    """

    def __init__(
        self,
        store: Store,
        search: Callable[[], list[tuple[str, T]]],
        rank: Callable[[T], tuple[bool, str]],
        delete: Callable[[T], object],
    ) -> None:
        self._store = store
        self._search = search
        self._rank = rank
        self._delete = delete
        self._found = store.call(self._list)

    def find(self, key: str) -> T | None:
        things = self._found.get(key)
        return things[0] if things else None

    def find_or_create(self, key: str, create: Callable[[], T]) -> T:
        """The thing with this key."""
        is_known = True

        def attempt() -> T:
            nonlocal is_known
            if not is_known:
                # The try before this one may have been stored, and its reply lost.
                self._found = self._list()
            is_known = False
            found = self.find(key)
            if found is None:
                self._store.budget.require_left()
                found = create()
                self._found[key] = [found]
            return found

        return self._store.call(attempt)

    def remove_doubles(self) -> None:
        """Delete all but one with the same key: a request that was given up can still be stored late."""
        self._found = self._store.call(self._list)
        for things in self._found.values():
            for thing in things[1:]:
                self._store.call(self._delete, thing)

    def _list(self) -> dict[str, list[T]]:
        found: dict[str, list[T]] = defaultdict(list)
        for key, thing in self._search():
            found[key].append(thing)
        return {key: sorted(things, key=self._rank) for key, things in found.items()}
