"""Headers of Kafka actions as CloudEvents 1.0, in the binary content mode of the Kafka protocol binding.

Binding: cloudevents/bindings/kafka-protocol-binding.md of the CloudEvents specification, section 3.2.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from transforms.domain.base.calendar import rfc_3339
from transforms.domain.rules.actions import FiredAction

TYPE: Final = "event-trigger.action"

# RFC 3986, section 2: the characters of a URI reference.
_URI_REFERENCE: Final = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
# What CloudEvents' type String must not contain: control characters and noncharacters.
_INVALID_CHARACTER: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef"
    + "".join(f"{chr(n << 16 | 0xFFFE)}{chr(n << 16 | 0xFFFF)}" for n in range(17))
    + "]"
)


def default_source(job_name: str) -> str:
    """Return the source of a job that has no option for it."""
    return f"event-trigger/{quote(job_name, safe='')}"


def is_source(text: str) -> bool:
    """Whether a text is a valid source, that is a URI reference."""
    return _URI_REFERENCE.fullmatch(text) is not None


def headers_of(fired: FiredAction, source: str) -> list[tuple[str, bytes]]:
    """Return the headers of an action's record. They are the same when the action is written again.

    Optional attributes are left out where there is no valid value: ``ce_subject`` if the user id is not a CloudEvents
    String, ``ce_time`` if quiet hours held the action under an earlier release, which did not store the time.
    """
    headers = [
        ("action-id", fired.action_id),
        ("rule", fired.rule),
        ("rule-version", str(fired.rule_version)),
        ("rule-set", str(fired.rule_set)),
        ("ce_specversion", "1.0"),
        ("ce_id", fired.action_id),
        ("ce_source", source),
        ("ce_type", TYPE),
        ("content-type", "application/json"),
    ]
    if _INVALID_CHARACTER.search(fired.user_id) is None:
        headers.append(("ce_subject", fired.user_id))
    if fired.at_ms:
        headers.append(("ce_time", rfc_3339(fired.at_ms)))
    return [(name, value.encode()) for name, value in headers]
