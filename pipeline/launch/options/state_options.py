"""Options of the group "State and enrichment": users' state and the user API."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.launch.options.fields import state_option
from transforms.domain.base.secret_references import ALLOWED as TOKEN_REFERENCES


@dataclass(frozen=True, kw_only=True)
class StateOptions:
    """What the stateful step keeps of users, and how it calls the user API."""

    state_ttl_seconds: float = state_option(
        600.0, "idle time after which a user is forgotten", unit="s", least=0.1, most=315_360_000
    )
    history_size: int = state_option(100, "events kept in a user's history", unit="events", least=1, most=10_000)
    history_fields: tuple[str, ...] = state_option(
        (), "event field kept in the history besides event_id, event_name, timestamp; may be repeated"
    )
    user_api_url: str | None = state_option(
        None, "base URL of the user API: {base}/users/{id}/profile, /visit, /history; without it nobody is known"
    )
    user_api_timeout_seconds: float = state_option(2.0, "time one call may take", unit="s", least=0.01)
    user_api_concurrency: int = state_option(
        32, "calls at a time per worker; a user takes three", unit="calls", least=1, most=1024
    )
    user_api_max_answer_bytes: int = state_option(
        1_000_000, "larger answers are errors", unit="bytes", least=1024, most=16_000_000
    )
    user_api_token: str | None = state_option(
        None,
        f"where workers find the user API's bearer token: {TOKEN_REFERENCES}; never the token itself; needs https, "
        "or http to this machine",
    )
    user_api_ca_file: Path | None = state_option(
        None,
        "PEM file of the CAs that vouch for the user API instead of the public ones; an absolute path on every worker",
        unit="path",
    )
    enrichment_deadline_seconds: float = state_option(
        10.0, "after it an event runs with an empty profile", unit="s", least=0.1, most=600
    )
    enrichment_retry_seconds: float = state_option(
        30.0,
        "pause before a user whose profile did not come is asked for again",
        unit="s",
        least=0.1,
        most=86_400,
    )
    profile_max_age_seconds: float | None = state_option(
        None,
        "age from which a profile is fetched anew, in use until then; without it never",
        unit="s",
        least=0.1,
    )
    max_waiting_bytes: int = state_option(
        1_000_000,
        "events of one user that may wait for its profile; more run without",
        unit="bytes",
        least=1024,
        most=16_000_000,
    )
    max_user_bytes: int = state_option(
        16_000_000,
        "profile and history of one user; the oldest history goes",
        unit="bytes",
        least=16_384,
        most=16_000_000,
    )
    allowed_lateness_seconds: float = state_option(
        10.0,
        "how late an event may be for a sequence, cooldown or cap to take it into account",
        unit="s",
        least=0,
        most=604_800,
    )
    state_cache_mb: int = state_option(1024, "memory of a worker for folded state", unit="MB", least=1)
    compact_bytes: int = state_option(
        262_144, "journal bytes from which a shard is compacted", unit="bytes", least=1024
    )
