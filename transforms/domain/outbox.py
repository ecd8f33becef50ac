"""What a worker knows of a shard's webhooks and does not store: whose turn it is, and what is under way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from transforms.domain.agenda import Agenda
from transforms.domain.deliveries import NO_DELIVERIES, Deliveries, Delivery


class Outbox:
    """Whose turn it is. Made anew with each fold of the journal: then nothing is under way."""

    __slots__ = ("_agenda", "under_way")

    def __init__(self, deliveries: Mapping[str, Deliveries]) -> None:
        # Users by the action that is under way for them.
        self.under_way: dict[str, str] = {}
        self._agenda = Agenda()
        self.changed(deliveries, deliveries)

    def changed(self, deliveries: Mapping[str, Deliveries], user_ids: Iterable[str]) -> None:
        """Something of these users was added, has ended or was put off."""
        for user_id in user_ids:
            heads = deliveries.get(user_id, NO_DELIVERIES).heads()
            due = [one.due_ms for one in heads if one.action_id not in self.under_way]
            self._agenda.set(user_id, min(due, default=None))

    def next_ms(self) -> int | None:
        """When the next one may be sent."""
        return self._agenda.next_ms()

    def due(self, deliveries: Mapping[str, Deliveries], now_ms: int) -> list[tuple[str, Delivery]]:
        """User and delivery of all whose turn has come."""
        return [
            (user_id, one)
            for user_id in self._agenda.until(now_ms)
            for one in deliveries.get(user_id, NO_DELIVERIES).heads()
            if one.due_ms <= now_ms and one.action_id not in self.under_way
        ]

    def sent(self, deliveries: Mapping[str, Deliveries], user_id: str, action_id: str) -> None:
        """It is under way."""
        self.under_way[action_id] = user_id
        self.changed(deliveries, (user_id,))

    def came_back(self, action_id: str) -> str | None:
        """It is not under way any more; its user."""
        return self.under_way.pop(action_id, None)
