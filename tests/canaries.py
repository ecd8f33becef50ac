"""Secrets whose texts nobody else writes, services that ask for them, and what processes show of them."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from standardwebhooks import Webhook

from pipeline.embedded.server import LocalServer, QuietHandler

CLIENT: Final = "canary-client"


def _key(name: str) -> str:
    """A signing key; base64 of its bytes is as written, so that a part of the text is looked for."""
    return "whsec_" + base64.b64encode(f"canary-{name}-0123456789".ljust(36, "x").encode()).decode()


@dataclass
class Canaries:
    """The secrets of workers by name, for one of the ways; ``reference`` says where each lies.

    Attributes:
        kind: ``env`` or ``file``.
        folder: where files of secrets lie.
    """

    kind: str
    folder: Path
    texts: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        words = ("user_api_token", "user_hash_key", "header", "oauth2_secret", "access_token", "ui_token")
        self.texts = {name: f"canary-{self.kind}-{name}-9Qx4vT7zLm2K" for name in words}
        self.texts |= {name: _key(f"{self.kind}-{name}") for name in ("signing", "dead_letters_key")}
        if self.kind == "file":
            for name, text in self.texts.items():
                (self.folder / name).write_text(text)
                (self.folder / name).chmod(0o600)

    def environment(self, *names: str) -> dict[str, str]:
        """The variables that references name: those of workers, or of the named secrets."""
        given = names or [name for name in self.texts if name not in ("ui_token", "access_token")]
        return {f"CANARY_{name.upper()}": self.texts[name] for name in given} if self.kind == "env" else {}

    def reference(self, name: str) -> str:
        return f"env:CANARY_{name.upper()}" if self.kind == "env" else f"file:{self.folder / name}"

    def parts(self) -> list[bytes]:
        """What is looked for: parts of the texts, in plain and as HTTP's Basic has them."""
        basic = base64.b64encode(f"{CLIENT}:{self.texts['oauth2_secret']}".encode())[8:-4]
        return [text.encode()[:40] for text in self.texts.values()] + [basic]


@dataclass
class Services:
    """A user API, an authorization server and a receiver of webhooks that ask for the secrets of ``canaries``.

    Attributes:
        canaries: whose texts are right.
        url: their address.
        counts: how often each has got the right secret.
        wrong: what came without it.
    """

    canaries: Canaries
    url: str = ""
    counts: dict[str, int] = field(default_factory=lambda: {"users": 0, "token": 0, "hook": 0, "echo": 0})
    wrong: list[str] = field(default_factory=list)

    def destinations(self) -> str:
        """The file of destinations: ``hook`` takes webhooks, ``echo`` refuses them with all that came in its answer."""
        common = {
            "secrets": [self.canaries.reference("signing")],
            "headers": {"X-Api-Key": {"secret": self.canaries.reference("header")}},
            "oauth2": {
                "token_url": f"{self.url}/token",
                "client_id": CLIENT,
                "client_secret": self.canaries.reference("oauth2_secret"),
            },
        }
        return json.dumps({"destinations": [{"name": n, "url": f"{self.url}/{n}", **common} for n in ("hook", "echo")]})

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """Status and body of an answer."""
        texts, kind = self.canaries.texts, path.split("/")[1].partition("?")[0]
        given = headers.get("Authorization", "")
        if kind == "users":
            right, answer = given == f"Bearer {texts['user_api_token']}", b'{"country": "US"}'
            status = 200 if path.endswith("profile") else 404
        elif kind == "token":
            basic = base64.b64encode(f"{CLIENT}:{texts['oauth2_secret']}".encode()).decode()
            right, status = given == f"Basic {basic}", 200
            answer = json.dumps(
                {"access_token": texts["access_token"], "token_type": "Bearer", "expires_in": 3600}
            ).encode()
        else:
            Webhook(texts["signing"]).verify(body, dict(headers))
            right = (given, headers.get("X-Api-Key")) == (f"Bearer {texts['access_token']}", texts["header"])
            status, answer = (200, b"") if kind == "hook" else (400, json.dumps(dict(headers)).encode())
        if right:
            self.counts[kind] += 1
        else:
            self.wrong.append(f"{method} {path}")
        return (status, answer) if right else (401, b"")


@contextlib.contextmanager
def services(canaries: Canaries) -> Iterator[Services]:
    """The services on 127.0.0.1 while the context is open."""
    found = Services(canaries)

    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802 - the name that the server calls
            self.do_POST()

        def do_POST(self) -> None:  # noqa: N802 - likewise
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, answer = found.answer(self.command, self.path, dict(self.headers), body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    with LocalServer("canaries", Handler) as server:
        found.url = server.url
        yield found


# Processes. What their arguments begin with says which program a process runs.
_PROGRAMS: Final = (
    (b"eventtrigger.flink.JobServer", "job server"),
    (b"StandaloneSessionClusterEntrypoint", "JobManager"),
    (b"TaskManagerRunner", "TaskManager"),
    (b"kafka.Kafka", "broker"),
    (b"event-trigger-worker", "worker"),
    (b"adapters.lua", "sandbox"),
    (b"-m\0pipeline", "command"),
    (b"pytest", "test"),
)


@dataclass
class Watched:
    """What ``/proc`` has shown: argument lists, and environments by program."""

    arguments: set[bytes] = field(default_factory=set)
    environments: dict[str, set[bytes]] = field(default_factory=dict)

    def holders(self, parts: Sequence[bytes]) -> set[str]:
        """The programs in whose environment one of the parts is."""
        return {
            program
            for program, found in self.environments.items()
            if any(part in environment for environment in found for part in parts)
        }

    def look(self) -> None:
        """Read what there is now."""
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                arguments = (path / "cmdline").read_bytes()
                self.arguments.add(arguments)
                environment = (path / "environ").read_bytes()
                program = next((name for mark, name in _PROGRAMS if mark in arguments), arguments[:80].decode("latin1"))
                kept = self.environments.setdefault(program, set())
                if b"canary" in environment.lower():  # all others would be much
                    kept.add(environment)


@contextlib.contextmanager
def watching() -> Iterator[Watched]:
    """Look at all processes of this machine again and again while the context is open."""
    found, ended = Watched(), threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            found.look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
