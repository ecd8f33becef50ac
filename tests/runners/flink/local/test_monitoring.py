"""Missing programs, and the configuration of Grafana; the demo's test and tests/infra start Prometheus."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from pipeline.cli.main import main
from runners.flink.errors import LocalStackError
from runners.flink.local.monitoring import DASHBOARDS, LocalGrafana, grafana_home

# Stands for Grafana, which no package registry has: reads its configuration, and shows what it would be set up with.
STAND_IN = """\
#!{python}
import configparser, json, pathlib, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

options = dict(option.removeprefix("--").split("=", 1) for option in sys.argv[2:])
settings = configparser.ConfigParser()
settings.read_string(pathlib.Path(options["config"]).read_text())
provisioning = pathlib.Path(settings["paths"]["provisioning"])
shown = {{
    "command": sys.argv[1],
    "home": options["homepath"],
    "anonymous": settings["auth.anonymous"]["org_role"],
    "provisioning": {{path.parent.name: path.read_text() for path in provisioning.glob("*/*.yaml")}},
}}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(shown).encode())


HTTPServer((settings["server"]["http_addr"], int(settings["server"]["http_port"])), Handler).serve_forever()
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder of a program that stands in for Grafana."""
    (tmp_path / "grafana" / "bin").mkdir(parents=True)
    (tmp_path / "grafana" / "conf").mkdir()
    (tmp_path / "grafana" / "conf" / "defaults.ini").touch()
    program = tmp_path / "grafana" / "bin" / "grafana"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    return tmp_path / "grafana"


def test_a_demo_with_monitoring_fails_at_once_without_prometheus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["demo", "--monitoring"]) == 1
    output = capsys.readouterr()
    assert output.err == (
        "error: prometheus is not on the PATH; as root on Debian and Ubuntu make infra-tools installs it, or apt-get\n"
    )
    assert "starting" not in output.out + output.err


def test_grafana_is_found_by_its_folder_or_on_the_path(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert grafana_home(None) is None
    assert grafana_home(str(home)) == home
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "grafana").symlink_to(home / "bin" / "grafana")
    assert grafana_home(None) == home


def test_a_folder_without_grafana_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalStackError, match=r"^GRAFANA_HOME is '.*'; allowed: a folder with bin/grafana and conf/"):
        grafana_home(str(tmp_path))


def test_grafana_gets_the_dashboards_and_prometheus_and_leaves_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_over: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with LocalGrafana(home, "http://127.0.0.1:9") as grafana:
        assert grafana.url.startswith("http://127.0.0.1:")
        served = requests.get(grafana.url, timeout=5).json()
        assert list(tmp_path.glob("event-trigger-*"))
    assert (served["command"], served["home"], served["anonymous"]) == ("server", str(home), "Viewer")
    assert "url: http://127.0.0.1:9\n" in served["provisioning"]["datasources"]
    assert f"path: {DASHBOARDS}\n" in served["provisioning"]["dashboards"]
    assert left_over() == []
    assert list(tmp_path.glob("event-trigger-*")) == []
