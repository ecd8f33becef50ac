"""The queries of ``runners/flink/monitoring``, and the tables of docs/metrics.md about them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import requests
import yaml

from runners.flink.local.monitoring import CONFIGURATION, DASHBOARDS
from runners.flink.local.processes import LOCALHOST, Process, free_ports
from tests.readme import METRICS as PAGE
from tests.waiting import eventually

ALERTS: Final[list[dict[str, Any]]] = yaml.safe_load((CONFIGURATION / "alerts.yml").read_text())["groups"][0]["rules"]
BOARDS: Final[dict[str, dict[str, Any]]] = {
    path.stem: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))
}


def queries() -> Iterator[tuple[str, str]]:
    """Name (``dashboard: panel [legend]``) and query of every line of every dashboard."""
    for name, board in BOARDS.items():
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield f"{name}: {panel['title']} [{target['legendFormat']}]", target["expr"]


def filled(query: str, interval: str, shown: str = "1h") -> str:
    """A dashboard's query as Grafana asks it of Prometheus when all jobs are chosen; ``shown`` is the time it shows."""
    return query.replace("$__rate_interval", interval).replace("$__range", shown).replace("$job", ".*")


def names_of(query: str) -> set[str]:
    """The names of the metrics in a query."""
    return set(re.findall(r"\b(?:flink|event_trigger)_\w+", query))


def specified_rows() -> list[tuple[str, list[str], str]]:
    """Entry (empty: the one above), metrics, dashboard and panel of the specification's table in docs/metrics.md."""
    _, _, section = PAGE.read_text("utf-8").partition("## What the specification asks for")
    rows = re.findall(r"^\|(.*)\|(.*)\|(.*)\|$", section, re.MULTILINE)[2:]
    return [(entry.strip(), re.findall(r"`(\w+)`", metrics), where.strip()) for entry, metrics, where in rows]


@contextmanager
def prometheus_of(folder: Path, deadline_s: float) -> Iterator[str]:
    """A real Prometheus with the prometheus.yml of ``folder``, from its first scrape on; its URL."""
    (port,) = free_ports(1)
    url = f"http://{LOCALHOST}:{port}"
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    process = Process.start(
        "Prometheus", [*command, f"--web.listen-address={LOCALHOST}:{port}"], log_file=folder / "log"
    )
    try:
        scraped = "Prometheus has scraped"
        eventually(lambda: process.running and answers(url, "event_trigger_events"), scraped, deadline_s)
        yield url
    finally:
        process.stop()


def answers(url: str, query: str) -> list[dict[str, Any]]:
    """What Prometheus answers to a query now; nothing while it does not answer."""
    try:
        answer = requests.get(f"{url}/api/v1/query", params={"query": query}, timeout=5).json()
    except requests.RequestException:
        return []
    return list(answer["data"]["result"])
