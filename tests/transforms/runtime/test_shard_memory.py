from __future__ import annotations

import gc

from tests.builders import MemoryBag
from transforms.domain.shard.journal import Journal
from transforms.domain.shard.journal_elements import JournalHead
from transforms.runtime import shard_memory
from transforms.runtime.shard_memory import memory_of


def test_a_worker_remembers_a_shard_as_long_as_its_journal_is_folded() -> None:
    bags = [MemoryBag(), MemoryBag()]
    bags[0].add(JournalHead(1))
    memory_of(Journal(bags, 5).folded).number = 3
    assert memory_of(Journal(bags, 5).folded).number == 3
    bags = [MemoryBag(bag.stored) for bag in bags]  # restored
    assert memory_of(Journal(bags, 5).folded).number is None


def test_the_memory_of_a_shard_goes_with_its_journal() -> None:
    folded = Journal([MemoryBag(), MemoryBag()], 5).folded
    memory_of(folded)
    gc.collect()
    before = len(shard_memory._memories)
    del folded
    gc.collect()
    assert len(shard_memory._memories) == before - 1
