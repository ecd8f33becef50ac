"""What the compose file has in place of yours: a user API, a receiver of webhooks, and a source of events.

user-api   answers /users/ID/profile, /visit and /history on port 8000 with made-up users
receiver   answers every POST on port 8000 with 204 and prints it
events     writes made-up events to the events topic until it is stopped: BROKERS TOPIC EVENTS-A-SECOND
"""

import sys
import time
from http.server import ThreadingHTTPServer

import orjson
from confluent_kafka import Producer

from pipeline.embedded.server import QuietHandler
from pipeline.embedded.stream import Visitors
from pipeline.embedded.user_api import profile_of


class UserApi(QuietHandler):
    """Made-up users; one in ten is unknown."""

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
        """Answer as docs/user-state.md says a user API does."""
        _, _, user_id, resource = (*self.path.partition("?")[0].split("/"), "", "", "", "")[:4]
        profile = profile_of(user_id)
        found = {"profile": profile, "visit": {}, "history": []}.get(resource) if profile else None
        body = orjson.dumps(found) if found is not None else b""
        self.send_response(200 if found is not None else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Receiver(QuietHandler):
    """Takes every webhook."""

    def do_POST(self) -> None:  # noqa: N802
        """Print the body; 204."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        sys.stdout.write(f"{self.path} {body.decode(errors='replace')}\n")
        sys.stdout.flush()
        self.send_response(204)
        self.end_headers()


def send_events(brokers: str, topic: str, per_second: str) -> None:
    """Write events of 2,000 users, keyed by user, until the process is stopped."""
    producer, visitors = Producer({"bootstrap.servers": brokers}), Visitors(seed=1, users=2_000)
    while True:
        event = visitors.next_event(int(time.time() * 1000))
        producer.produce(topic, orjson.dumps(event), str(event["user_id"]).encode())
        producer.poll(0)
        time.sleep(1 / float(per_second))


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    if role == "events":
        send_events(*arguments)
    handler = {"user-api": UserApi, "receiver": Receiver}[role]
    ThreadingHTTPServer(("0.0.0.0", 8000), handler).serve_forever()  # noqa: S104 - inside a network of containers
