"""The state of a user: profile, current visit, history (docs/spec/architecture.md, "Per-User State Structure")."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import msgspec
import orjson

from transforms.domain.base import exact_json
from transforms.domain.users.history import History, Packed
from transforms.domain.users.visit import Visit

# Where rules and actions see why there is no fetched profile: a field of the empty profile, and a name beside the
# profile, as a fetched profile may have such a field of its own. And the values.
ENRICHMENT: Final = "enrichment"
FETCHED: Final = "fetched"
UNKNOWN: Final = "unknown"  # the user API answered 404
UNAVAILABLE: Final = "unavailable"  # the user API did not answer in time
PENDING: Final = "pending"  # the user API has not answered yet, and no rule waits for the answer

# Estimated memory of a user besides profile and history: objects, keys, the visit, hashes of 100 history rows, and the
# cached fields of the profile.
OVERHEAD_BYTES: Final = 1500
_ID_BYTES: Final = 100
_MAX_CACHED_FIELDS: Final = 10
_MAX_CACHED_CHARACTERS: Final = 100
_NO_FIELDS: Final[dict[str, Any]] = {}
_ENRICHMENT_BYTES: Final = ENRICHMENT.encode()
_NO_IDS: Final[frozenset[str]] = frozenset()


class ProfileFields:
    """Decodes only some fields of profiles: it takes a quarter of the time and creates no objects for the others."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = tuple(names)
        # A JSON name may be any text, which is not a valid Python identifier.
        fields = {f"field_{number}": name for number, name in enumerate(self.names)}
        struct = msgspec.defstruct("_Fields", [(field, Any, msgspec.UNSET) for field in fields], rename=fields)
        self._decoder = msgspec.json.Decoder(struct)

    def of(self, profile_json: bytes) -> dict[str, Any]:
        """Return the fields that the profile has, by name."""
        if not self.names:
            return {}
        try:
            values = msgspec.structs.astuple(self._decoder.decode(profile_json))
        except msgspec.ValidationError:
            # An integer of more digits than Python's own integers are read from.
            profile = exact_json.loads(profile_json)
            return {name: profile[name] for name in self.names if name in profile}
        return {name: value for name, value in zip(self.names, values, strict=True) if value is not msgspec.UNSET}


def _is_small(value: Any) -> bool:
    return len(value) <= _MAX_CACHED_CHARACTERS if type(value) is str else type(value) not in (dict, list)


class PackedUser(msgspec.Struct, array_like=True):
    """A user in the journal. New fields are added only at the end and with a default."""

    user_id: str
    last_seen_ms: int
    enrichment: str
    profile_json: bytes
    visit: Visit | None
    history: Packed
    fetched_ms: int = 0
    failed_ms: int = 0
    stream_since_ms: int = 0
    listed: list[str] = []


class UserState:
    """Mutable state of one user; only facts change it (``ShardState.apply``).

    Attributes:
        last_seen_ms: processing time of the last event.
        enrichment: ``FETCHED``, ``UNKNOWN``, ``UNAVAILABLE`` or ``PENDING``.
        profile_json: the profile, a JSON object.
        visit: the current visit.
        history: the last events.
        fetched_ms: when the user API answered.
        failed_ms: when the last fetch failed; 0 if none failed since the last answer.
        stream_since_ms: Kafka time of the first event; what came later comes from the stream. 0: an earlier release
            stored the user.
        listed: ids of events that are still to come and whose pages are in the visit, as the user API had them.
    """

    __slots__ = (
        "_cached_fields",
        "_cached_values",
        "enrichment",
        "failed_ms",
        "fetched_ms",
        "history",
        "last_seen_ms",
        "listed",
        "profile_json",
        "stream_since_ms",
        "visit",
    )

    def __init__(self, last_seen_ms: int, enrichment: str, profile_json: bytes, history: History) -> None:
        self.last_seen_ms = last_seen_ms
        self.replace_profile(enrichment, profile_json)
        self.visit: Visit | None = None
        self.history = history
        self.fetched_ms = 0
        self.failed_ms = 0
        self.stream_since_ms = 0
        self.listed: frozenset[str] = _NO_IDS

    def replace_profile(self, enrichment: str, profile_json: bytes) -> None:
        """Replace the profile and its origin."""
        self.enrichment = enrichment
        self.profile_json = profile_json
        self._cached_values = _NO_FIELDS
        self._cached_fields: ProfileFields | None = None

    @property
    def nbytes(self) -> int:
        """Estimated memory in bytes, for the state cache."""
        return OVERHEAD_BYTES + len(self.profile_json) + self.history.nbytes + _ID_BYTES * len(self.listed)

    @property
    def has_profile(self) -> bool:
        """Whether the user API has answered, also that it does not know the user."""
        return self.enrichment not in (PENDING, UNAVAILABLE)

    @property
    def has_enrichment_field(self) -> bool:
        """Whether a fetched profile has a field that is called like the one that says why there is none."""
        profile_json = self.profile_json
        # Where neither is in it, it need not be decoded; a backslash may be a letter of the name.
        if self.enrichment != FETCHED or not (_ENRICHMENT_BYTES in profile_json or b"\\" in profile_json):
            return False
        return ENRICHMENT in exact_json.loads(profile_json)

    def profile(self) -> dict[str, Any]:
        """Return the profile as rules and actions see it; without a profile it has only ``enrichment``."""
        profile: dict[str, Any] = exact_json.loads(self.profile_json)
        if self.enrichment != FETCHED:
            profile[ENRICHMENT] = self.enrichment
        return profile

    def written_profile(self) -> orjson.Fragment | dict[str, Any]:
        """Return ``profile()`` for orjson to encode; a fetched profile is not decoded for it."""
        return orjson.Fragment(self.profile_json) if self.enrichment == FETCHED else self.profile()

    def profile_fields(self, fields: ProfileFields) -> dict[str, Any]:
        """Return some fields of ``profile()``; small ones are cached, because every event reads them."""
        if self._cached_fields is fields:
            return self._cached_values
        values = fields.of(self.profile_json)
        if self.enrichment != FETCHED and ENRICHMENT in fields.names:
            values[ENRICHMENT] = self.enrichment
        if len(values) <= _MAX_CACHED_FIELDS and all(map(_is_small, values.values())):
            self._cached_values, self._cached_fields = values, fields
        return values

    def forget_listed(self, event_id: str) -> None:
        """Forget that an event was still to come, or all of them once another visit has begun."""
        is_listed_visit = self.visit is not None and self.visit.from_api
        self.listed = self.listed - {event_id} if is_listed_visit else _NO_IDS

    def is_due(self, now_ms: int, max_age_ms: int | None, retry_ms: int) -> bool:
        """Whether the user has to be fetched again.

        Args:
            now_ms: processing time.
            max_age_ms: age after which a profile is fetched again; None: never.
            retry_ms: pause after a failed fetch.
        """
        if self.enrichment == PENDING:
            return True
        if self.has_profile and (max_age_ms is None or now_ms < self.fetched_ms + max_age_ms):
            return False
        return now_ms >= self.failed_ms + retry_ms

    def pack(self, user_id: str) -> PackedUser:
        """Return the form that the journal stores."""
        return PackedUser(
            user_id,
            self.last_seen_ms,
            self.enrichment,
            self.profile_json,
            self.visit,
            self.history.pack(),
            self.fetched_ms,
            self.failed_ms,
            self.stream_since_ms,
            sorted(self.listed),
        )

    @classmethod
    def unpack(cls, packed: PackedUser, history_size: int) -> UserState:
        """Restore a packed user; ``history_size`` may differ from the size it was packed with."""
        user = cls(
            packed.last_seen_ms, packed.enrichment, packed.profile_json, History.unpack(history_size, packed.history)
        )
        user.visit = packed.visit
        user.fetched_ms, user.failed_ms = packed.fetched_ms, packed.failed_ms
        user.stream_since_ms, user.listed = packed.stream_since_ms, frozenset(packed.listed)
        return user
