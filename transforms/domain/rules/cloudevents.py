"""Kafka actions as CloudEvents 1.0: the Kafka protocol binding's binary content mode, attributes as headers.

Binding: cloudevents/bindings/kafka-protocol-binding.md of the CloudEvents specification, section 3.2.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from transforms.domain.base.calendar import rfc_3339
from transforms.domain.rules.actions import FiredAction

TYPE: Final = "event-trigger.action"

# RFC 3986, section 2: what a URI reference may consist of.
_URI_REFERENCE: Final = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
# The specification's type String: no control characters, no noncharacters.
_NO_STRING: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef"
    + "".join(f"{chr(n << 16 | 0xFFFE)}{chr(n << 16 | 0xFFFF)}" for n in range(17))
    + "]"
)


def default_source(job_name: str) -> str:
    """The source of a job that names none."""
    return f"event-trigger/{quote(job_name, safe='')}"


def is_source(text: str) -> bool:
    """Whether a text can be a source: a URI reference."""
    return _URI_REFERENCE.fullmatch(text) is not None


def headers_of(fired: FiredAction, source: str) -> list[tuple[str, bytes]]:
    """The headers of an action's record, all the same whenever it is written again.

    Optional attributes are left out where they cannot be: ``ce_subject`` of a user id that is no String of the
    specification, ``ce_time`` of an action that an earlier release held without its time.
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
    if _NO_STRING.search(fired.user_id) is None:
        headers.append(("ce_subject", fired.user_id))
    if fired.at_ms:
        headers.append(("ce_time", rfc_3339(fired.at_ms)))
    return [(name, value.encode()) for name, value in headers]
