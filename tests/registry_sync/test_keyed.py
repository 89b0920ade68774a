"""One thing for one key, whatever gets lost between us and the store."""

import pytest

from exporter.errors import SyncError
from registry_sync import store as store_module
from registry_sync.bounded import Budget
from registry_sync.keyed import Keyed
from registry_sync.store import Store


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(store_module, "_PAUSE_S", 0.0)
    return Store("http://127.0.0.1", None, "1", Budget(60))


def make_keyed(store: Store, there: list[str]) -> Keyed[str]:
    """Things are strings; what stands before the colon is the key."""
    return Keyed(
        store,
        lambda: [(thing.split(":")[0], thing) for thing in there],
        lambda thing: ("unfinished" in thing, thing),
        there.remove,
    )


def test_what_is_there_is_not_made_again(store: Store) -> None:
    keyed = make_keyed(store, ["a:1"])
    assert keyed.find_or_create("a", lambda: pytest.fail("made")) == "a:1"
    assert keyed.find("b") is None


def test_what_was_stored_though_the_reply_was_lost_is_found_and_not_made_again(store: Store) -> None:
    there: list[str] = []
    keyed = make_keyed(store, there)

    def create() -> str:
        there.append("a:1")
        raise ConnectionResetError

    assert keyed.find_or_create("a", create) == "a:1"
    assert there == ["a:1"]


def test_what_was_not_stored_is_made_at_the_next_try(store: Store) -> None:
    keyed = make_keyed(store, [])
    replies: list[object] = [ConnectionResetError(), ConnectionResetError(), "a:1"]

    def create() -> str:
        reply = replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return str(reply)

    assert keyed.find_or_create("a", create) == "a:1"


def test_a_create_that_never_succeeds_is_given_up(store: Store) -> None:
    def create() -> str:
        raise ConnectionResetError("reset")

    with pytest.raises(SyncError, match="reset"):
        make_keyed(store, []).find_or_create("a", create)


def test_of_two_with_one_key_the_finished_one_stays(store: Store) -> None:
    there = ["a:1 unfinished", "b:1", "a:2", "a:3"]
    keyed = make_keyed(store, there)
    assert keyed.find("a") == "a:2"
    keyed.remove_doubles()
    assert there == ["b:1", "a:2"]


def test_nothing_is_made_where_the_search_before_it_took_all_the_time(store: Store) -> None:
    made: list[str] = []
    searches: list[int] = []

    def search() -> list[tuple[str, str]]:
        searches.append(1)
        if len(searches) > 1:
            store.budget.give_up()
        return []

    def create() -> str:
        if len(searches) == 1:
            # Whether it was stored the second try has to find out.
            raise ConnectionResetError
        made.append("a")
        return "a"

    keyed = Keyed(store, search, lambda thing: (False, thing), made.remove)
    with pytest.raises(SyncError, match="did not answer in time"):
        keyed.find_or_create("a", create)
    assert (len(searches), made) == (2, [])
