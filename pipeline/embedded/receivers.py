"""Stand-ins for the destinations of rules' webhooks, so that embedded runs and the demo need no destinations file."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable
from typing import Final

from transforms.domain.rules.model import Rule, WebhookAction
from transforms.domain.webhooks.destinations import Destination

SIGNING_KEY_VARIABLE: Final = "EVENT_TRIGGER_DEMO_SIGNING_KEY"


def made_up_key() -> str:
    """A signing key of Standard Webhooks, for ``SIGNING_KEY_VARIABLE`` of the workers."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"


def destinations_of(rules: Iterable[Rule]) -> tuple[str, ...]:
    """The names of the destinations that rules' webhooks go to."""
    return tuple(
        dict.fromkeys(
            action.destination for rule in rules for action in rule.actions if isinstance(action, WebhookAction)
        )
    )


def stand_in(name: str, url: str) -> Destination:
    """A destination at ``url``."""
    return Destination(name=name, url=url, secrets=(f"env:{SIGNING_KEY_VARIABLE}",))
