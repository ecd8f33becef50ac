"""Which of a cluster's jobs a command means."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from pipeline.job.jobs import NoJobError, newest_job
from runners.flink.rest import FlinkRest


def jobs(*states: tuple[str, str, int]) -> dict[str, Any]:
    return {
        "jobs": [
            {"jid": f"{n}", "name": state[0], "state": state[1], "start-time": state[2]}
            for n, state in enumerate(states)
        ]
    }


def test_of_jobs_with_a_name_the_newest_that_runs_is_meant(httpserver: HTTPServer) -> None:
    rest = FlinkRest(httpserver.url_for("/"))
    found = jobs(("a", "RUNNING", 5), ("a", "RUNNING", 7), ("a", "FAILED", 9), ("b", "RUNNING", 10))
    httpserver.expect_request("/jobs/overview").respond_with_json(found)
    assert newest_job(rest, "a") == "1"
    with pytest.raises(NoJobError, match=r"no job 'c' at http://\S+, there are 'a', 'b': see --job_name"):
        newest_job(rest, "c")
