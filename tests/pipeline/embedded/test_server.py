"""The demo's receiver."""

from __future__ import annotations

import requests

from pipeline.embedded.server import CountingReceiver


def test_webhooks_are_counted_by_their_ids() -> None:
    with CountingReceiver() as receiver:
        assert receiver.counts() == (0, 0)
        for webhook_id in ("a", "b", "a", "a"):
            answer = requests.post(receiver.url, data=b"{}", headers={"webhook-id": webhook_id}, timeout=10)
            assert answer.status_code == 204
        assert receiver.counts() == (2, 2)
