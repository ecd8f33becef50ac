"""``python -m pipeline ui``: serves a web page about a job: rules, decisions, dead letters, users."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Any, Final

from pipeline.cli.command_line import CommandParser
from pipeline.errors import OptionError
from pipeline.launch.options import Settings
from transforms.adapters.secrets import Secret
from transforms.domain.base.secret_references import LOCAL, is_local_reference

_DESCRIPTION: Final = """\
Serves a web page about a job until Ctrl-C: its rules with matches per minute, recent actions and why, dead letters, one
user's state. Give it the options of the launch: --flink_master and --bootstrap_servers are needed, and what the launch
had of --job_name, --rules or --rules_topic, --control_topic, --decisions_topic and other topics.
Without --token it is read-only. 0: ended with Ctrl-C; 1: the address is taken; 2: an option cannot be used."""

_ADDRESS: Final = "127.0.0.1"
_PORT: Final = 8085
_SNAPSHOT_INTERVAL_S: Final = 5.0
_THREADS: Final = 8


def main(argv: Sequence[str]) -> int:
    """Serve the page; the exit code."""
    return _parser().run_with_launch_options(_ui, argv)


def _ui(arguments: argparse.Namespace, settings: Settings) -> int:
    _check(settings, arguments)
    return _serve(settings, arguments, _token(arguments.token))


def _parser() -> CommandParser:
    parser = CommandParser("ui", f"[OPTIONS OF THE LAUNCH] [--port={_PORT}] [--token=env:NAME]", _DESCRIPTION)
    parser.add_argument(
        "--address",
        default=_ADDRESS,
        help=f"IP address to listen on, others than this machine's need --token ({_ADDRESS})",
    )
    parser.add_argument("--port", type=int, default=_PORT, help=f"0 is any that is free (default: {_PORT})")
    parser.add_argument("--token", metavar="REFERENCE", help=f"what dead letters are redriven with: {LOCAL}")
    parser.add_argument(
        "--allowed_host",
        action="append",
        default=[],
        metavar="NAME",
        help="the page's name behind a proxy; may be repeated",
    )
    return parser


def check_page_packages() -> None:
    """Check that the page's packages are installed.

    Raises:
        OptionError: one is not.
    """
    if any(importlib.util.find_spec(name) is None for name in ("flask", "waitress")):
        raise OptionError("the page needs Flask and waitress: pip install 'event-trigger[ui]'")


@contextlib.contextmanager
def served_page(settings: Settings) -> Iterator[str]:
    """Serve the page of a job on this machine, read-only, while the context is open; its address."""
    from waitress.server import create_server

    from pipeline.ui.app import build
    from pipeline.ui.guard import Guard
    from pipeline.ui.job import RunningJob
    from pipeline.ui.watch import Watch

    job = RunningJob(settings)
    with Watch(job.snapshot_source(), _SNAPSHOT_INTERVAL_S) as watch:
        app = build(job, watch, Guard(None, [_ADDRESS, "localhost"], reads_need_it=False))
        try:
            server: Any = create_server(app, host=_ADDRESS, port=_PORT, threads=_THREADS, ident=None)
        except OSError:  # the port is taken
            server = create_server(app, host=_ADDRESS, port=0, threads=_THREADS, ident=None)
        threading.Thread(target=server.run, name="page", daemon=True).start()
        try:
            yield f"http://{_ADDRESS}:{server.effective_port}"
        finally:
            server.close()


def _check(settings: Settings, arguments: argparse.Namespace) -> None:
    check_page_packages()
    if settings.bootstrap_servers is None:
        raise OptionError("--bootstrap_servers is missing: give HOST:PORT of a broker")
    if settings.flink_master is None:
        raise OptionError("--flink_master is missing: give HOST:PORT of Flink's REST endpoint")
    if not 0 <= arguments.port < 65536:
        raise OptionError(f"--port is {arguments.port}, allowed: 0 to 65535")
    for name in arguments.allowed_host:
        if not re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", name):
            raise OptionError(f"--allowed_host is {name!r}, allowed: a host's name, without a port")
    try:
        is_local = ip_address(arguments.address).is_loopback
    except ValueError:
        raise OptionError(f"--address is {arguments.address!r}, allowed: an IP address") from None
    if not is_local and arguments.token is None:
        raise OptionError(
            f"--address is {arguments.address}, allowed without --token: 127.0.0.1 or ::1, as pages show users' data"
        )


def _token(reference: str | None) -> Secret | None:
    if reference is None:
        return None
    if not is_local_reference(reference):
        raise OptionError(f"--token is no reference, allowed: {LOCAL}")
    from pipeline.ui.guard import check_token

    token = Secret(reference, check_token)
    token.text()
    return token


def _serve(settings: Settings, arguments: argparse.Namespace, token: Secret | None) -> int:
    # Imported here, because only this command needs the page's packages.
    from waitress.server import create_server

    from pipeline.ui.app import build
    from pipeline.ui.guard import Guard
    from pipeline.ui.job import RunningJob
    from pipeline.ui.watch import Watch

    job = RunningJob(settings)
    is_local = ip_address(arguments.address).is_loopback
    hosts = ["127.0.0.1", "localhost", "[::1]", arguments.address, *arguments.allowed_host]
    with Watch(job.snapshot_source(), _SNAPSHOT_INTERVAL_S) as watch:
        app = build(job, watch, Guard(token, hosts, reads_need_it=not is_local))
        try:
            server: Any = create_server(app, host=arguments.address, port=arguments.port, threads=_THREADS, ident=None)
        except OSError as error:
            sys.stderr.write(f"error: --address {arguments.address}, --port {arguments.port}: {error.strerror}\n")
            return 1
        shown = f"[{arguments.address}]" if ":" in arguments.address else arguments.address
        access = (
            "read-only: --token=env:NAME lets dead letters be redriven" if token is None else "sign in with the token"
        )
        sys.stdout.write(f"http://{shown}:{server.effective_port}  {access}\n")
        sys.stdout.flush()
        try:
            server.run()
        except KeyboardInterrupt:
            pass
        finally:
            server.close()
    return 0
