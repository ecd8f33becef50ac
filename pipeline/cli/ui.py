"""``event-trigger ui``: serves a web page about a job: rules, decisions, dead letters, users."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from pipeline.cli.parameters import Count, Launch
from pipeline.console import complain, out, warn
from pipeline.errors import OptionError
from pipeline.launch.options import Settings
from transforms.adapters.secrets import Secret
from transforms.domain.base.secret_references import LOCAL, SecretError, is_local_reference
from transforms.domain.base.strength import check_strength

if TYPE_CHECKING:
    from flask import Flask

_SNAPSHOT_INTERVAL_S: Final = 5.0
_THREADS: Final = 8
# Of what the server keeps of requests before a thread has them. Pages say no to forms that are larger than 64 KB.
_LARGEST_BODY: Final = 1 << 20
_LARGEST_HEADERS: Final = 64 << 10
# A connection that says nothing ends, so that those who open many soon have none.
_SILENT_S: Final = 20
_CONNECTIONS: Final = 500


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the page listens, and who may see it.

    Args:
        address: IP address to listen on; others than this machine's need --token.
        port: 0 is any that is free.
        allowed_host: the page's name or address behind a proxy; may be repeated.
        trusted_proxy: address of the proxy with TLS, whose X-Forwarded-Proto and X-Forwarded-For count.
    """

    address: str = "127.0.0.1"
    port: Count = 8085
    token: Annotated[
        str | None, Parameter(metavar="REFERENCE", help=f"what letters are redriven and rules changed with: {LOCAL}")
    ] = None
    allowed_host: Annotated[tuple[str, ...], Parameter(metavar="NAME")] = ()
    trusted_proxy: Annotated[str | None, Parameter(metavar="ADDRESS")] = None

    def serve(self, app: Flask, port: int | None = None) -> Any:
        """The server, which listens, but does not answer yet."""
        from waitress.server import create_server

        options: dict[str, Any] = {"port": self.port if port is None else port, "threads": _THREADS, "ident": None}
        options |= {"max_request_body_size": _LARGEST_BODY, "max_request_header_size": _LARGEST_HEADERS}
        options |= {"connection_limit": _CONNECTIONS, "channel_timeout": _SILENT_S, "cleanup_interval": 5}
        options["asyncore_use_poll"] = True  # select() knows no file beyond number 1023
        if self.trusted_proxy is not None:
            headers = {"x-forwarded-proto", "x-forwarded-for"}
            options |= {"trusted_proxy": self.trusted_proxy, "trusted_proxy_headers": headers}
        # Such headers of other senders do not count.
        return create_server(app, host=self.address, clear_untrusted_proxy_headers=True, **options)


def ui(*, listen: Address = Address(), options: Launch = Launch()) -> int:
    """Serve a web page about a job until Ctrl-C: rules with matches per minute, recent actions and why, dead letters.

    It also shows one user's state. Give it the options of the launch (`event-trigger run --help`): --flink_master and
    --bootstrap_servers are needed, and what the launch had of --job_name, --rules or --rules_topic, --control_topic,
    --decisions_topic and other topics. Without --token it is read-only.

    0: ended with Ctrl-C; 1: the address is taken; 2: an option cannot be used.
    """
    settings = options.settings_of_job()
    _check(settings, listen)
    return _serve(settings, listen, _token(listen.token))


def check_page_packages() -> None:
    """Check that the page's packages are installed.

    Raises:
        OptionError: one is not.
    """
    if any(importlib.util.find_spec(name) is None for name in ("flask", "waitress")):
        raise OptionError("the page needs Flask and waitress: pip install flask waitress")


@contextlib.contextmanager
def served_page(settings: Settings) -> Iterator[str]:
    """Serve the page of a job on this machine, read-only, while the context is open; its address."""
    from pipeline.ui.app import build
    from pipeline.ui.guard import Guard
    from pipeline.ui.job import RunningJob
    from pipeline.ui.watch import Watch

    job, listen = RunningJob(settings), Address()
    with Watch(job.snapshot_source(), _SNAPSHOT_INTERVAL_S, where=job.where) as watch:
        app = build(job, watch, Guard(None, [listen.address, "localhost"], reads_need_it=False))
        try:
            server: Any = listen.serve(app)
        except OSError:  # the port is taken
            server = listen.serve(app, port=0)
        threading.Thread(target=server.run, name="page", daemon=True).start()
        try:
            yield f"http://{listen.address}:{server.effective_port}"
        finally:
            server.close()


def _check(settings: Settings, listen: Address) -> None:
    check_page_packages()
    if settings.bootstrap_servers is None:
        raise OptionError("--bootstrap_servers is missing: give HOST:PORT of a broker")
    if settings.flink_master is None:
        raise OptionError("--flink_master is missing: give HOST:PORT of Flink's REST endpoint")
    if not 0 <= listen.port < 65536:
        raise OptionError(f"--port is {listen.port}, allowed: 0 to 65535")
    for name in listen.allowed_host:
        if not re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.?", name) and not _is_address(name.strip("[]")):
            raise OptionError(f"--allowed_host is {name!r}, allowed: a host's name or IP address, without a port")
    if not _is_address(listen.address):
        raise OptionError(f"--address is {listen.address!r}, allowed: an IP address")
    if listen.trusted_proxy is not None and not _is_address(listen.trusted_proxy):
        raise OptionError(f"--trusted_proxy is {listen.trusted_proxy!r}, allowed: an IP address")
    is_local = ip_address(listen.address).is_loopback
    if not is_local and listen.token is None:
        raise OptionError(
            f"--address is {listen.address}, allowed without --token are 127.0.0.1 and ::1, as pages show users' data"
        )


def _token(reference: str | None) -> Secret | None:
    if reference is None:
        return None
    if not is_local_reference(reference):
        raise OptionError(f"--token is no reference, allowed: {LOCAL}")
    token = Secret(reference, check_strength)
    try:
        token.text()
    except SecretError as error:
        raise OptionError(f"--token is {error}") from None
    return token


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _serve(settings: Settings, listen: Address, token: Secret | None) -> int:
    # Imported here, because only this command needs the page's packages.
    from pipeline.ui.app import build
    from pipeline.ui.guard import Guard
    from pipeline.ui.job import RunningJob
    from pipeline.ui.watch import Watch

    job = RunningJob(settings)
    is_local = ip_address(listen.address).is_loopback
    hosts = ["127.0.0.1", "localhost", "::1", listen.address, *listen.allowed_host]
    if (listen.allowed_host or not is_local) and listen.trusted_proxy is None:
        warn("without --trusted_proxy nobody knows of TLS: browsers send the session's cookie without it, too")
    with Watch(job.snapshot_source(), _SNAPSHOT_INTERVAL_S, where=job.where) as watch:
        app = build(job, watch, Guard(token, hosts, reads_need_it=not is_local))
        try:
            server: Any = listen.serve(app)
        except OSError as error:
            complain(f"--address {listen.address}, --port {listen.port}: {error.strerror}")
            return 1
        shown = f"[{listen.address}]" if ":" in listen.address else listen.address
        access = (
            "read-only: --token=env:NAME lets dead letters be redriven and rules be changed"
            if token is None
            else "sign in with the token"
        )
        out(f"http://{shown}:{server.effective_port}  {access}")
        try:
            server.run()
        except KeyboardInterrupt:
            pass
        finally:
            server.close()
    return 0
