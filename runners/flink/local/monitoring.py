"""Prometheus and Grafana on 127.0.0.1, with the configuration, alerts and dashboards of ``monitoring/``."""

import abc
import contextlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import urlsplit

import requests
import yaml

from runners.flink.errors import LocalStackError
from runners.flink.local.processes import LOCALHOST, Process, free_ports
from runners.flink.local.service import Service

CONFIGURATION: Final = Path(__file__).parents[1] / "monitoring"
DASHBOARDS: Final = CONFIGURATION / "dashboards"
# Workers publish metrics once a second. A demo would show nothing for the 15 s of production.
SCRAPE_EVERY_S: Final = 2

_READY_S: Final = 60.0
# Where Linux packages put the files of the program.
_PACKAGED_GRAFANA: Final = Path("/usr/share/grafana")
_GRAFANA: Final = """\
[server]
http_addr = {host}
http_port = {port}
[paths]
data = {folder}/data
logs = {folder}/data/log
plugins = {folder}/data/plugins
provisioning = {folder}/provisioning
[auth.anonymous]
enabled = true
org_role = Viewer
[analytics]
reporting_enabled = false
check_for_updates = false
check_for_plugin_updates = false
[plugins]
preinstall_disabled = true
[news]
news_feed_enabled = false
[dashboards]
default_home_dashboard_path = {overview}
[log]
mode = console
level = warn
"""


def prometheus_program() -> str:
    """The path of ``prometheus``.

    Raises:
        LocalStackError: it is not on the PATH; the message says how to install it.
    """
    program = shutil.which("prometheus")
    if program is None:
        raise LocalStackError(
            "prometheus is not on the PATH; as root on Debian and Ubuntu make infra-tools installs it, or apt-get"
        )
    return program


def grafana_home(named: str | None) -> Path | None:
    """The folder of a Grafana: ``named``, if given, else that of the PATH's ``grafana``; None if there is none.

    Raises:
        LocalStackError: ``named`` is not the folder of a Grafana.
    """
    if named is not None:
        if not _is_grafana(Path(named)):
            raise LocalStackError(
                f"GRAFANA_HOME is {named!r}; allowed: a folder with bin/grafana and conf/defaults.ini"
            )
        return Path(named)
    program = shutil.which("grafana")
    if program is None:
        return None
    return next((home for home in (Path(program).resolve().parents[1], _PACKAGED_GRAFANA) if _is_grafana(home)), None)


def _is_grafana(home: Path) -> bool:
    return (home / "bin" / "grafana").is_file() and (home / "conf" / "defaults.ini").is_file()


class _WebProgram(Service):
    """A program that serves a web page on 127.0.0.1. Its files are in a temporary folder."""

    ready_path: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self._port = 0

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``."""
        return f"http://{LOCALHOST}:{self._port}"

    def start(self) -> None:
        """Start the program and return when it answers.

        Raises:
            LocalStackError: the program did not start; with the end of its log.
        """
        (self._port,) = free_ports(1)
        work_dir = self._open_work_dir()
        command = self._prepare(work_dir, self._port)
        self._process = Process.start(self.name, command, log_file=work_dir / "log", cwd=work_dir)
        self._process.wait_for(self._is_ready, what="answering", deadline_s=_READY_S)

    @abc.abstractmethod
    def _prepare(self, folder: Path, port: int) -> Sequence[str]:
        """Write the configuration into ``folder``; returns the command."""

    def _is_ready(self) -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.get(self.url + self.ready_path, timeout=2).ok
        return False


class LocalPrometheus(_WebProgram):
    """Prometheus with the shipped scrape configuration and alerts.

    ``metrics_urls`` are those of Flink's processes (``LocalFlink.metrics_urls``). Only the intervals differ from the
    shipped configuration: ``SCRAPE_EVERY_S`` for scrapes and for the conditions of alerts.
    """

    name = "Prometheus"
    ready_path = "/-/ready"

    def __init__(self, metrics_urls: Sequence[str]) -> None:
        super().__init__()
        self._targets = [urlsplit(url).netloc for url in metrics_urls]

    def page(self, name: str) -> str:
        """The URL of the page ``alerts`` or ``targets``. Debian's package has the classic pages only."""
        url = f"{self.url}/{name}"
        return url if requests.get(url, timeout=5).ok else f"{self.url}/classic/{name}"

    def _prepare(self, folder: Path, port: int) -> Sequence[str]:
        shipped = yaml.safe_load((CONFIGURATION / "prometheus.yml").read_text("utf-8"))
        interval = f"{SCRAPE_EVERY_S}s"
        shipped["global"] |= {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(shipped), "utf-8")
        shutil.copy(CONFIGURATION / "alerts.yml", folder)
        targets = [{"targets": self._targets, "labels": {"cluster": "demo"}}]
        (folder / "targets.json").write_text(json.dumps(targets), "utf-8")
        return [
            prometheus_program(),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={LOCALHOST}:{port}",
        ]


class LocalGrafana(_WebProgram):
    """Grafana with the shipped dashboards and a Prometheus as its data source. Viewers need no login.

    ``home`` is the folder of a Grafana 10 or newer. Grafana connects to nothing outside this machine.
    """

    name = "Grafana"
    ready_path = "/api/health"

    def __init__(self, home: Path, prometheus_url: str) -> None:
        super().__init__()
        self._home = home
        self._prometheus_url = prometheus_url

    def _prepare(self, folder: Path, port: int) -> Sequence[str]:
        source = {
            "name": "Prometheus",
            "type": "prometheus",
            "access": "proxy",
            "url": self._prometheus_url,
            "isDefault": True,
            # $__rate_interval is four of these.
            "jsonData": {"timeInterval": f"{SCRAPE_EVERY_S}s", "httpMethod": "POST"},
        }
        boards = {"name": "event-trigger", "type": "file", "options": {"path": str(DASHBOARDS)}}
        for kind, content in (("datasources", {"datasources": [source]}), ("dashboards", {"providers": [boards]})):
            (folder / "provisioning" / kind).mkdir(parents=True)
            path = folder / "provisioning" / kind / "event-trigger.yaml"
            path.write_text(yaml.safe_dump({"apiVersion": 1, **content}), "utf-8")
        settings = _GRAFANA.format(host=LOCALHOST, port=port, folder=folder, overview=DASHBOARDS / "overview.json")
        (folder / "grafana.ini").write_text(settings, "utf-8")
        program = str(self._home / "bin" / "grafana")
        return [program, "server", f"--homepath={self._home}", f"--config={folder / 'grafana.ini'}"]
