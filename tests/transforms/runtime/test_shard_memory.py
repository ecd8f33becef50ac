from __future__ import annotations

from tests.builders import MemoryBag
from transforms.domain.shard.journal import Journal
from transforms.domain.shard.journal_elements import JournalHead
from transforms.runtime.outbox import Outbox
from transforms.runtime.shard_memory import ShardMemory


def test_a_worker_remembers_a_shard_as_long_as_its_journal_is_folded() -> None:
    bags = [MemoryBag(), MemoryBag()]
    bags[0].add(JournalHead(1))
    memory = Journal(bags, 5).folded.memory = ShardMemory(Outbox({}))
    assert Journal(bags, 5).folded.memory is memory
    restored = [MemoryBag(bag.stored) for bag in bags]
    assert Journal(restored, 5).folded.memory is None
