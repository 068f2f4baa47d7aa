"""What every store must do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from fsdcore.contracts.store import Store
from fsdcore.errors import KeyMissingError, PreconditionError

_BYTES = bytes(range(256))


class StoreTests:
    """Subclass this, and give the fixture `store`: an empty store for each test.

    `peek` looks at an object by another way than the store under test, if there is one: override it to have the tests
    check out of band.
    """

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError("give the suite a fixture named store")

    def peek(self, store: Store, key: str) -> bytes | None:
        """The object at `key`, None if there is none."""
        try:
            return store.get(key)
        except KeyMissingError:
            return None

    @pytest.mark.parametrize("data", [b"", b"x", _BYTES, _BYTES * 20_000], ids=len)
    def test_an_object_comes_back_as_it_was_put(self, store: Store, data: bytes) -> None:
        store.put("a/b", data)
        assert store.get("a/b") == data
        assert self.peek(store, "a/b") == data

    def test_a_second_put_replaces_the_object(self, store: Store) -> None:
        store.put("k", b"first, and longer")
        store.put("k", b"second")
        assert self.peek(store, "k") == b"second"

    def test_a_missing_key_is_its_own_error(self, store: Store) -> None:
        for read in (store.get, lambda key: store.get_range(key, 0, 1)):
            with pytest.raises(KeyMissingError, match="none/such"):
                read("none/such")

    def test_if_absent_leaves_what_is_there(self, store: Store) -> None:
        if not store.capabilities.conditional_put:
            pytest.skip("the store has no conditional put")
        store.put("k", b"first", if_absent=True)
        with pytest.raises(PreconditionError, match="k"):
            store.put("k", b"second", if_absent=True)
        assert self.peek(store, "k") == b"first"

    def test_one_of_many_that_put_if_absent_wins(self, store: Store) -> None:
        if not store.capabilities.conditional_put:
            pytest.skip("the store has no conditional put")

        def attempt(number: int) -> bool:
            try:
                store.put("lock", str(number).encode(), if_absent=True)
            except PreconditionError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(attempt, range(16)))
        assert won.count(True) == 1
        assert self.peek(store, "lock") == str(won.index(True)).encode()

    @pytest.mark.parametrize(
        ("start", "length", "expected"),
        [
            (0, 4, b"0123"),
            (3, 4, b"3456"),
            (8, 10, b"89"),
            (10, 1, b""),
            (99, 5, b""),
            (2, 0, b""),
            (4, 1 << 30, b"456789"),
            (1 << 30, 9, b""),
        ],
    )
    def test_a_range_ends_where_the_object_ends(self, store: Store, start: int, length: int, expected: bytes) -> None:
        store.put("k", b"0123456789")
        assert store.get_range("k", start, length) == expected

    def test_a_range_of_an_empty_object_is_empty(self, store: Store) -> None:
        store.put("k", b"")
        assert store.get_range("k", 0, 10) == b""

    @pytest.mark.parametrize(("start", "length"), [(-1, 2), (0, -1)])
    def test_a_negative_range_is_refused(self, store: Store, start: int, length: int) -> None:
        store.put("k", b"data")
        with pytest.raises(ValueError, match="range"):
            store.get_range("k", start, length)

    def test_list_gives_the_keys_with_the_prefix_sorted(self, store: Store) -> None:
        for key in ("b/2", "a/10", "a/9", "a", "ab/c"):
            store.put(key, b"")
        assert store.list("a") == ["a", "a/10", "a/9", "ab/c"]
        assert store.list("a/") == ["a/10", "a/9"]
        assert store.list("a/1") == ["a/10"]
        assert store.list("zzz") == []
        assert len(store.list("")) == 5

    def test_list_gives_all_of_many_keys(self, store: Store) -> None:
        keys = sorted(f"many/{number}" for number in range(1_205))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.put(key, b""), keys))
        assert store.list("many/") == keys
        store.delete(keys)
        assert store.list("many/") == []

    def test_a_key_may_be_the_beginning_of_another(self, store: Store) -> None:
        store.put("a", b"short")
        store.put("a/b", b"long")
        assert (store.get("a"), store.get("a/b")) == (b"short", b"long")
        store.delete(["a"])
        assert self.peek(store, "a") is None
        assert self.peek(store, "a/b") == b"long"

    def test_delete_is_content_with_what_is_not_there(self, store: Store) -> None:
        store.put("k", b"data")
        store.delete(["k", "none/such"])
        store.delete([])
        assert self.peek(store, "k") is None
        assert not store.exists("k")

    @pytest.mark.parametrize("key", ["", "/", "a//b", "../up", "a/./b", "a\\b", "new\nline", "é", "x" * 901])
    def test_a_key_no_store_can_hold_is_refused(self, store: Store, key: str) -> None:
        with pytest.raises(ValueError, match="key"):
            store.put(key, b"data")

    def test_closing_twice_is_harmless(self, store: Store) -> None:
        store.close()
        store.close()
