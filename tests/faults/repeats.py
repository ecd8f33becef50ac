"""Why webhooks came again, although a ledger says which of them are settled."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

CLAIM, SETTLED = 1, 2
CAUSES = IN_FLIGHT, NOT_ACKNOWLEDGED, LATER = (
    "in flight",
    "answered and not acknowledged",
    "of workers that lived on until the job restarted",
)
# A worker that is starved takes that long at most to append what a receiver has answered.
APPENDED_S: Final = 2.0


def key_of(webhook_id: str) -> bytes:
    """Under which the ledger has a webhook."""
    return hashlib.blake2b(msgspec.msgpack.encode([webhook_id, ""]), digest_size=16).digest()


def causes_of_repeats(
    ledger: Iterable[tuple[int, int, float, Sequence[object]]],
    arrivals: Iterable[tuple[float, str]],
    blows_s: Sequence[float],
    receiver_s: float,
) -> tuple[Counter[str], list[str]]:
    """Why webhooks came again: the greatest number for one blow of each cause, and what no cause explains.

    That is a webhook whose end the ledger had before the newest claim of its shard, or that was answered long before
    the first blow, or by the worker that had claimed its shard after a blow. It may come again long after that blow,
    and after another one: until then it waited behind others.

    Args:
        ledger: partition, offset, time and contents of its records.
        arrivals: time and id of each webhook, in the order of arrival.
        blows_s: when faults struck.
        receiver_s: how long the receiver takes to answer.
    """
    claims: dict[int, list[tuple[float, int]]] = defaultdict(list)  # by partition: time and offset
    ends: dict[object, tuple[int, int]] = {}  # by key: partition, and offset of the first record
    for partition, offset, time_s, (kind, _, key, *_rest) in ledger:
        if kind == CLAIM:
            claims[partition].append((time_s, offset))
        elif kind == SETTLED:
            ends.setdefault(key, (partition, offset))
    came: dict[str, float] = {}
    numbers: Counter[tuple[str, float]] = Counter()
    problems = []
    for at_s, webhook_id in arrivals:
        before_s, came[webhook_id] = came.get(webhook_id), at_s
        if before_s is None:
            continue
        key = key_of(webhook_id)
        partition, end = ends.get(key, (0, 0))
        newest = max((offset for time_s, offset in claims[partition] if time_s <= at_s), default=-1)
        answered_s = before_s + receiver_s
        struck_s = max((blow_s for blow_s in blows_s if blow_s <= answered_s + APPENDED_S), default=math.inf)
        claimed_s = min((time_s for time_s, _ in claims[partition] if time_s > struck_s), default=math.inf)
        if key in ends and end < newest:
            problems.append(f"{webhook_id} at {at_s}: ended at {partition}/{end}, claimed at {newest}")
        elif struck_s == math.inf:
            problems.append(f"{webhook_id} at {at_s}: answered at {answered_s}, before any blow")
        elif before_s > claimed_s + APPENDED_S:
            problems.append(f"{webhook_id} at {at_s}: sent at {before_s}, after {partition} was claimed at {claimed_s}")
        if before_s > struck_s:
            numbers[LATER, struck_s] += 1
        else:
            numbers[IN_FLIGHT if answered_s > struck_s else NOT_ACKNOWLEDGED, struck_s] += 1
    most: Counter[str] = Counter()
    for (cause, _), number in numbers.items():
        most[cause] = max(most[cause], number)
    return most, problems
