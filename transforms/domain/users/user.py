"""What is known of a user: profile, current visit, history (spec/architecture.md, "Per-User State Structure")."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import msgspec
import orjson

from transforms.domain.users.history import History, Packed
from transforms.domain.users.visit import Visit

# Where a profile came from; actions and rules see it in this field.
ENRICHMENT: Final = "enrichment"
FETCHED: Final = "fetched"
UNKNOWN: Final = "unknown"  # the user API answered 404
UNAVAILABLE: Final = "unavailable"  # the user API did not answer in time
PENDING: Final = "pending"  # the user API has not answered yet, and no rule wants to wait for it

# What a user costs beside profile and history, roughly: objects, keys, the visit, marks of a history of 100 events,
# fields of the profile that rules read.
OVERHEAD_BYTES: Final = 1500
_FIELDS_KEPT: Final = 10
_CHARACTERS_KEPT: Final = 100
_NOTHING: Final[dict[str, Any]] = {}


class ProfileFields:
    """Reads some fields of profiles without making anything of the others: a quarter of the time, and no garbage."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = tuple(names)
        # Any text is a name in JSON; in Python they need others.
        fields = {f"field_{number}": name for number, name in enumerate(self.names)}
        struct = msgspec.defstruct("_Fields", [(field, Any, msgspec.UNSET) for field in fields], rename=fields)
        self._decoder = msgspec.json.Decoder(struct)

    def of(self, profile_json: bytes) -> dict[str, Any]:
        """Those fields that a profile has, by name."""
        if not self.names:
            return {}
        values = msgspec.structs.astuple(self._decoder.decode(profile_json))
        return {name: value for name, value in zip(self.names, values, strict=True) if value is not msgspec.UNSET}


def _is_little(value: Any) -> bool:
    return len(value) <= _CHARACTERS_KEPT if type(value) is str else type(value) not in (dict, list)


class PackedUser(msgspec.Struct, array_like=True):
    """A user in the journal. Fields are only ever added at the end, with a default."""

    user_id: str
    last_seen_ms: int
    enrichment: str
    profile_json: bytes
    visit: Visit | None
    history: Packed
    fetched_ms: int = 0
    failed_ms: int = 0


class UserState:
    """Mutable state of one user; only ``ShardState.apply`` changes it.

    ``fetched_ms`` is when the profile came, ``failed_ms`` when it was last asked for in vain, 0 if not since.
    """

    __slots__ = (
        "_picked",
        "_picked_by",
        "enrichment",
        "failed_ms",
        "fetched_ms",
        "history",
        "last_seen_ms",
        "profile_json",
        "visit",
    )

    def __init__(self, last_seen_ms: int, enrichment: str, profile_json: bytes, history: History) -> None:
        self.last_seen_ms = last_seen_ms
        self.replace_profile(enrichment, profile_json)
        self.visit: Visit | None = None
        self.history = history
        self.fetched_ms = 0
        self.failed_ms = 0

    def replace_profile(self, enrichment: str, profile_json: bytes) -> None:
        """Take what the user API says now."""
        self.enrichment = enrichment
        self.profile_json = profile_json
        self._picked = _NOTHING
        self._picked_by: ProfileFields | None = None

    @property
    def nbytes(self) -> int:
        """A cheap estimate of the memory held, for the state cache."""
        return OVERHEAD_BYTES + len(self.profile_json) + self.history.nbytes

    @property
    def has_profile(self) -> bool:
        """Whether the user API has said what it knows, be it nothing."""
        return self.enrichment not in (PENDING, UNAVAILABLE)

    def profile(self) -> dict[str, Any]:
        """The profile as rules and actions see it; empty but for ``enrichment`` when there is none."""
        profile: dict[str, Any] = orjson.loads(self.profile_json)
        if self.enrichment != FETCHED:
            profile[ENRICHMENT] = self.enrichment
        return profile

    def written_profile(self) -> orjson.Fragment | dict[str, Any]:
        """``profile()``, for orjson to write: most need not be read for it."""
        return orjson.Fragment(self.profile_json) if self.enrichment == FETCHED else self.profile()

    def profile_fields(self, fields: ProfileFields) -> dict[str, Any]:
        """Some fields of ``profile()``, those that it has. Kept if they are little: event after event asks for them."""
        if self._picked_by is fields:
            return self._picked
        found = fields.of(self.profile_json)
        if self.enrichment != FETCHED and ENRICHMENT in fields.names:
            found[ENRICHMENT] = self.enrichment
        if len(found) <= _FIELDS_KEPT and all(map(_is_little, found.values())):
            self._picked, self._picked_by = found, fields
        return found

    def is_due(self, now_ms: int, max_age_ms: int | None, retry_ms: int) -> bool:
        """Whether the user API should be asked again; ``max_age_ms`` None is never, unless it has not answered."""
        if self.enrichment == PENDING:
            return True
        if self.has_profile and (max_age_ms is None or now_ms < self.fetched_ms + max_age_ms):
            return False
        return now_ms >= self.failed_ms + retry_ms

    def pack(self, user_id: str) -> PackedUser:
        """For the journal."""
        return PackedUser(
            user_id,
            self.last_seen_ms,
            self.enrichment,
            self.profile_json,
            self.visit,
            self.history.pack(),
            self.fetched_ms,
            self.failed_ms,
        )

    @classmethod
    def unpack(cls, packed: PackedUser, history_size: int) -> UserState:
        """A user as it was packed, under a history size that may have changed since."""
        user = cls(
            packed.last_seen_ms, packed.enrichment, packed.profile_json, History.unpack(history_size, packed.history)
        )
        user.visit = packed.visit
        user.fetched_ms, user.failed_ms = packed.fetched_ms, packed.failed_ms
        return user
