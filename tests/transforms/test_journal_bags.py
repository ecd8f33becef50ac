"""What the journal relies on in Beam's state cache (``journal.CachedBag``), on the SDK harness's own classes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker import bundle_processor, sdk_worker, statecache

from tests.overridden import overridden
from tests.transforms.harness import StoredState
from transforms.domain.shard.facts import EventsUnparked
from transforms.domain.shard.journal import Journal
from transforms.domain.shard.journal_elements import JournalEntry, JournalHead, make_entry
from transforms.handle_events import JournalCoder

KEY = beam_fn_api_pb2.StateKey(
    bag_user_state=beam_fn_api_pb2.StateKey.BagUserState(transform_id="t", user_state_id="journal_v1", key=b"key")
)


class Worker:
    """A bag as the bundles of one SDK harness see it, one handler and cache for all of them."""

    def __init__(self) -> None:
        self.stored, self.coder = StoredState(), JournalCoder()
        self.handler = sdk_worker.GlobalCachingStateHandler(statecache.StateCache(1 << 20), self.stored)

    @contextmanager
    def bundle(self, token: bytes = b"1") -> Iterator[Any]:
        user_state = beam_fn_api_pb2.ProcessBundleRequest.CacheToken.UserState()
        cache_token = beam_fn_api_pb2.ProcessBundleRequest.CacheToken(user_state=user_state, token=token)
        with self.handler.process_instruction_id("bundle", [cache_token]):
            yield bundle_processor.SynchronousBagRuntimeState(self.handler, KEY, self.coder)

    def filled(self) -> list[Any]:
        """Two elements, committed after a read, as the journal does it."""
        elements = [JournalHead(1), make_entry(7, [EventsUnparked("u1")])]
        with self.bundle() as bag:
            assert list(bag.read()) == []
            for element in elements:
                bag.add(element)
            bag.commit()
        return elements


def test_a_bag_has_the_same_objects_while_the_token_is_valid() -> None:
    worker = Worker()
    head, entry = worker.filled()
    for _ in range(2):
        with worker.bundle() as bag:
            assert [element is known for element, known in zip(bag.read(), (head, entry), strict=True)] == [True, True]


def test_on_our_workers_a_read_returns_the_cached_list_itself() -> None:
    with overridden():
        worker = Worker()
        worker.filled()
        with worker.bundle() as bag:
            read = bag.read()
            assert type(read) is list
            assert bag.read() is read
        with worker.bundle() as bag:
            assert bag.read() is read


def test_a_bag_has_new_objects_with_a_new_token() -> None:
    worker = Worker()
    head, entry = worker.filled()
    with worker.bundle(token=b"2") as bag:
        assert all(element not in (head, entry) for element in bag.read())
        assert [type(element) for element in bag.read()] == [JournalHead, JournalEntry]


def test_an_element_is_encoded_once_when_its_bundle_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[Any] = []
    encode = JournalCoder.encode
    monkeypatch.setattr(JournalCoder, "encode", lambda self, value: encoded.append(value) or encode(self, value))
    worker = Worker()
    entry = make_entry(7, [EventsUnparked("u1")])
    with worker.bundle() as bag:
        bag.read()
        bag.add(JournalHead(1))
        bag.add(entry)
        assert (encoded, entry.is_written) == ([], False)
        bag.commit()
    assert (encoded[1:], entry.is_written) == ([entry], True)
    with worker.bundle() as bag:
        bag.read()
        bag.commit()
    assert len(encoded) == 2


def test_what_a_failed_bundle_added_is_not_read() -> None:
    worker = Worker()
    worker.filled()
    with worker.bundle() as bag:
        journal = Journal([bag, worker_without_elements()], 5)
        with journal.changing():
            journal.append(8, [EventsUnparked("u1")])
        assert len(list(bag.read())) == 3
    # The old entry's bytes are free. Only a restore, which brings a new token, brings them back.
    with worker.bundle() as bag, pytest.raises(ValueError, match="the job has to be restored"):
        Journal([bag, worker_without_elements()], 5)
    with worker.bundle(token=b"2") as bag:
        restored = Journal([bag, worker_without_elements()], 5)
    assert restored.folded is not journal.folded
    assert restored.folded.counts == [2, 0]


def worker_without_elements() -> Any:
    with Worker().bundle() as bag:
        return bag
