"""Which rule set is live in a user shard: the one it was told of, or the one its job was launched with."""

from __future__ import annotations

import functools
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from transforms.domain.rules.filters import FilterSet, Isolation
from transforms.domain.rules.model import RuleError
from transforms.domain.rules.quarantine import Quarantine
from transforms.domain.rules.sets import RuleSet, StoredRules, decode_rule_set

# While a set travels to the shards two are live in a worker; a few more for the next ones.
_COMPILED_SETS: Final = 4

# A worker has many shards, and each gets every record of the topic.
_decoded = functools.lru_cache(maxsize=32)(decode_rule_set)


@dataclass(frozen=True, slots=True)
class LiveSet:
    """A rule set's number and its Lua, compiled."""

    number: int
    filters: FilterSet


class RuleSets:
    """The sets that are live in the shards of one DoFn instance. Not thread-safe.

    ``initial`` is what the job was launched with; ``topic`` is where others come from, None if none do. Lua runs with
    ``isolation``, see ``FilterSet``.

    Raises:
        RuleError: Lua of the initial set does not compile.
    """

    def __init__(
        self,
        initial: RuleSet,
        topic: str | None = None,
        quarantine: Quarantine | None = None,
        isolation: Isolation = "none",
    ) -> None:
        self.topic = topic
        self.initial = LiveSet(initial.number, FilterSet(initial.rules, quarantine, isolation=isolation))
        self._quarantine = quarantine
        self._isolation = isolation
        self._compiled: OrderedDict[bytes, LiveSet] = OrderedDict()

    def live(self, stored: StoredRules | None) -> LiveSet:
        """The set of a shard that keeps ``stored``: whichever number is higher; without a topic the launched one.

        Raises:
            RuleError: this release cannot use what is stored.
        """
        if self.topic is None or stored is None or stored.number <= self.initial.number:
            return self.initial
        return self.compiled(stored)

    def replaces(self, number: int, stored: StoredRules | None) -> bool:
        """Whether a shard takes a set: its number is higher than any before.

        The launched set is taken too, when the topic tells of it: from then on the shard keeps it by itself.
        """
        return number >= max(1, self.initial.number) and (stored is None or number > stored.number)

    def decoded(self, record: bytes) -> RuleSet:
        """The set of a record.

        Raises:
            RuleError: it is none.
        """
        return _decoded(record)

    def compiled(self, stored: StoredRules) -> LiveSet:
        """A set that can be asked.

        Raises:
            RuleError: it is none, or its Lua does not compile.
        """
        found = self._compiled.get(stored.digest)
        if found is None:
            try:
                filters = FilterSet(self.decoded(stored.record).rules, self._quarantine, isolation=self._isolation)
            except RuleError as error:
                raise RuleError(f"rule set {stored.number} cannot be used: {error}") from None
            found = self._compiled[stored.digest] = LiveSet(stored.number, filters)
            if len(self._compiled) > _COMPILED_SETS:
                self._compiled.popitem(last=False)[1].filters.close()
        self._compiled.move_to_end(stored.digest)
        return found

    def close(self) -> None:
        """Close every set's filters."""
        for one in (self.initial, *self._compiled.values()):
            one.filters.close()
        self._compiled.clear()
