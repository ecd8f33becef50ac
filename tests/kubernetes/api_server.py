"""The part of Kubernetes' API that Flink's high availability uses: config maps, which a Role opens to it."""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import threading
import time
import uuid
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

_PATH: Final = re.compile(r"/api/v1/namespaces/([^/]+)/(\w+)(?:/([^/]+))?")
_WATCH_S: Final = 20.0  # then a watch ends and is begun anew, as Kubernetes ends them too; clients ping after 30 s


class RefusedError(Exception):
    """An answer of the API that is not 2xx: HTTP status and reason."""


class ConfigMaps:
    """The config maps of a namespace, and what happened to them."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.changed = threading.Condition()

    def list(self, query: Mapping[str, str]) -> dict[str, Any]:
        items = [found for found in self.objects.values() if _selected(found, query)]
        metadata = {"resourceVersion": str(len(self.events))}
        return {"apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": items}

    def get(self, name: str) -> dict[str, Any]:
        if name not in self.objects:
            raise RefusedError(404, "NotFound")
        return self.objects[name]

    def create(self, given: dict[str, Any]) -> dict[str, Any]:
        if given["metadata"]["name"] in self.objects:
            raise RefusedError(409, "AlreadyExists")
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        given["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": now}
        return self._store("ADDED", given)

    def replace(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        metadata = self.get(name)["metadata"]
        expected = given["metadata"].get("resourceVersion")
        if expected not in (None, metadata["resourceVersion"]):
            raise RefusedError(409, "Conflict")
        given["metadata"] = {**given["metadata"], "uid": metadata["uid"]}
        return self._store("MODIFIED", given)

    def merge(self, name: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        return self.replace(name, _merged(self.get(name), patch))

    def delete(self, name: str) -> dict[str, Any]:
        return self._store("DELETED", self.get(name))

    def _store(self, event: str, given: dict[str, Any]) -> dict[str, Any]:
        stored = {**given, "metadata": {**given["metadata"], "resourceVersion": str(len(self.events) + 1)}}
        name = stored["metadata"]["name"]
        if event == "DELETED":
            del self.objects[name]
        else:
            self.objects[name] = stored
        self.events.append({"type": event, "object": stored})
        self.changed.notify_all()
        return stored


def _merged(base: Any, patch: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(patch, dict):
        return patch
    joined = {**base, **{key: _merged(base.get(key), value) for key, value in patch.items()}}
    return {key: value for key, value in joined.items() if value is not None}


def _selected(found: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    metadata = found["metadata"]
    labels = dict(pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair)
    fields = dict(pair.split("=", 1) for pair in query.get("fieldSelector", "").split(",") if pair)
    return labels.items() <= metadata.get("labels", {}).items() and fields.get("metadata.name") in (
        None,
        metadata["name"],
    )


def _frame(text: bytes) -> bytes:
    """A WebSocket frame with a text."""
    if len(text) < 126:
        return b"\x81" + bytes([len(text)]) + text
    return (
        b"\x81\x7e" + len(text).to_bytes(2) + text if len(text) < 65536 else b"\x81\x7f" + len(text).to_bytes(8) + text
    )


@contextmanager
def serve(
    address: tuple[str, int],
    namespace: str,
    role: Sequence[Mapping[str, Any]],
    token: str,
    certificate: tuple[Path, Path],
) -> Iterator[ConfigMaps]:
    """Serve a namespace to whoever has ``token``, which may do what the rules of ``role`` allow; yields its maps."""
    maps = ConfigMaps()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            target = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(target.query).items()}
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else {}
            try:
                name = self.allowed(target.path, watch=query.get("watch") == "true")
                if query.get("watch") == "true":
                    self.watch(query)
                    return
                with maps.changed:
                    found = self.handle_on(maps, name, query, body)
                self.send(200, found)
            except RefusedError as error:
                code, reason = error.args
                status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
                self.send(code, {**status, "message": f"{self.command} {self.path}: {reason}"})

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - the names that http.server calls

        def allowed(self, path: str, *, watch: bool) -> str | None:
            """The name of the config map that is asked for, or None for all."""
            if self.headers.get("Authorization") != f"Bearer {token}":
                raise RefusedError(401, "Unauthorized")
            found = _PATH.fullmatch(path)
            resource, name = (found[2], found[3]) if found and found[1] == namespace else (path, None)
            verb = {
                "GET": "get" if name else "watch" if watch else "list",
                "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete",
            }[self.command]  # fmt: skip
            if resource != "configmaps" or not any(
                "" in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"] for rule in role
            ):
                raise RefusedError(403, "Forbidden")
            return name

        def handle_on(
            self, maps: ConfigMaps, name: str | None, query: Mapping[str, str], body: dict[str, Any]
        ) -> dict[str, Any]:
            if name is None:
                return maps.create(body) if self.command == "POST" else maps.list(query)
            if self.command == "PATCH" and self.headers["Content-Type"] == "application/json-patch+json":
                raise RefusedError(415, "UnsupportedMediaType")
            return {
                "GET": lambda: maps.get(name),
                "PUT": lambda: maps.replace(name, body),
                "PATCH": lambda: maps.merge(name, body),
                "DELETE": lambda: maps.delete(name),
            }[self.command]()

        def watch(self, query: Mapping[str, str]) -> None:
            """Send events by WebSocket, as Kubernetes does for clients that ask so; Flink's asks so."""
            key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header(
                "Sec-WebSocket-Accept", b64encode(hashlib.sha1(key.encode(), usedforsecurity=False).digest()).decode()
            )
            self.end_headers()
            self.close_connection = True
            seen, end = int(query.get("resourceVersion", "0")), time.monotonic() + _WATCH_S
            while (left := end - time.monotonic()) > 0:
                with maps.changed:
                    if len(maps.events) == seen:
                        maps.changed.wait(left)
                    new, seen = maps.events[seen:], len(maps.events)
                for event in new:
                    if _selected(event["object"], query):
                        self.wfile.write(_frame(json.dumps(event).encode()))
            self.wfile.write(b"\x88\x02\x03\xe8")  # closed, status 1000

        def send(self, status: int, content: Mapping[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: clients ask all the time."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Nothing: clients that watch go when they are killed."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server = Server(address, Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, name="kubernetes-api")
    thread.start()
    try:
        yield maps
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
