"""Which rule set is live in a user shard: the published one that it stored, or the one its job was launched with."""

from __future__ import annotations

import contextlib
import functools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from transforms.domain.rules.engine import EngineError
from transforms.domain.rules.filters import FilterSet
from transforms.domain.rules.model import Rule, RuleError
from transforms.domain.rules.sets import MAX_JUMP, RuleSet, StoredRules, check_number, decode_rule_set

# While a set travels to the shards, two sets are live in a worker; a few more for the next ones.
_COMPILED_SETS: Final = 4
_STARTS: Final = 3

# ``decode_rule_set``, cached: a worker has many shards, and each gets every record of the topic.
cached_rule_set = functools.lru_cache(maxsize=32)(decode_rule_set)


@dataclass(frozen=True, slots=True)
class LiveSet:
    """A rule set's number and its Lua, compiled."""

    number: int
    filters: FilterSet


class RuleSets:
    """The rule sets that are live in the shards of one DoFn instance. Not thread-safe.

    Args:
        initial: the set that the job was launched with.
        compile_rules: makes the filters of a set; it raises ``RuleError`` for Lua that does not compile.
        topic: the topic that publishes further sets, None if the job has none.

    Raises:
        RuleError: Lua of the initial set does not compile.
    """

    def __init__(
        self, initial: RuleSet, compile_rules: Callable[[tuple[Rule, ...]], FilterSet], topic: str | None = None
    ) -> None:
        self.topic = topic
        self._compile_rules = compile_rules
        self.initial = LiveSet(initial.number, compile_rules(initial.rules))
        self._compiled: OrderedDict[bytes, LiveSet] = OrderedDict()

    def live(self, stored: StoredRules | None) -> LiveSet:
        """The live set of a shard: of ``stored`` and the launched set the one with the higher number.

        Without a topic it is the launched set.

        Raises:
            RuleError: this release cannot use the stored set.
        """
        if self.topic is None or stored is None or self._highest(stored) == self.initial.number:
            return self.initial
        return self.compiled(stored)

    def replaces(self, number: int, stored: StoredRules | None) -> bool:
        """Whether a shard stores a published set: its number is higher than any before.

        A shard also stores the launched set when it is published, and from then on keeps it by itself.

        Raises:
            RuleError: the number is far beyond any before.
        """
        check_number(number, self._highest(stored))
        is_newer = stored is None or number > stored.number or self._highest(stored) < stored.number
        return number >= max(1, self.initial.number) and is_newer

    def _highest(self, stored: StoredRules | None) -> int:
        """The higher of the numbers of the launched and the stored set.

        Earlier releases stored numbers that are out of reach. Such a set is none, so that others can follow.
        """
        initial = self.initial.number
        return stored.number if stored is not None and initial < stored.number <= initial + MAX_JUMP else initial

    def compiled(self, stored: StoredRules) -> LiveSet:
        """A stored set, compiled; the latest few are kept.

        Raises:
            RuleError: the record is no rule set, or its Lua does not compile.
        """
        live_set = self._compiled.get(stored.digest)
        if live_set is None:
            try:
                filters = self._filters_of(cached_rule_set(stored.record).rules)
            except (RuleError, EngineError) as error:
                raise RuleError(f"rule set {stored.number} cannot be used: {error}") from None
            live_set = self._compiled[stored.digest] = LiveSet(stored.number, filters)
            if len(self._compiled) > _COMPILED_SETS:
                self._compiled.popitem(last=False)[1].filters.close()
        self._compiled.move_to_end(stored.digest)
        return live_set

    def _filters_of(self, rules: tuple[Rule, ...]) -> FilterSet:
        """Compile rules. An engine that does not start is tried again: it may be the machine, and not the rules.

        Raises:
            RuleError: a rule's Lua does not compile.
            EngineError: the engine did not start in any try.
        """
        for _ in range(_STARTS - 1):
            with contextlib.suppress(EngineError):
                return self._compile_rules(rules)
        return self._compile_rules(rules)

    def close(self) -> None:
        """Close the filters of every set."""
        for live_set in (self.initial, *self._compiled.values()):
            live_set.filters.close()
        self._compiled.clear()
