from __future__ import annotations

import json
import socket

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from runners.flink.errors import FlinkSilentError, LocalStackError
from runners.flink.local.processes import free_ports
from runners.flink.rest import FlinkRest, root_cause
from tests.flink_cluster import running_since, wait_for_checkpoint, wait_for_recovery

JOB = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def rest(httpserver: HTTPServer) -> FlinkRest:
    return FlinkRest(httpserver.url_for("/"), timeout_s=2)


def job(state: str, *tasks: str, since: int = 0) -> dict[str, object]:
    vertices = [{"name": f"v{number}", "status": task} for number, task in enumerate(tasks)]
    return {"state": state, "vertices": vertices, "timestamps": {"RUNNING": since}}


def answer_job(httpserver: HTTPServer, state: str, *tasks: str, since: int = 0) -> None:
    answer = job(state, *tasks, since=since)
    httpserver.expect_ordered_request(f"/jobs/{JOB}").respond_with_json(answer)


def test_running_means_that_every_task_runs(rest: FlinkRest, httpserver: HTTPServer) -> None:
    answer_job(httpserver, "CREATED")
    answer_job(httpserver, "RUNNING", "RUNNING", "INITIALIZING")
    answer_job(httpserver, "RUNNING", "RUNNING", "RUNNING")
    assert rest.wait_for_state(JOB, {"RUNNING"}, 10) == "RUNNING"
    assert len(httpserver.log) == 3


def test_waiting_ends_at_once_when_the_job_failed(rest: FlinkRest, httpserver: HTTPServer) -> None:
    answer_job(httpserver, "FAILED", "FAILED")
    httpserver.expect_ordered_request(f"/jobs/{JOB}/exceptions").respond_with_json({"root-exception": "boom at X"})
    with pytest.raises(LocalStackError, match=r"is FAILED, not RUNNING: boom at X"):
        rest.wait_for_state(JOB, {"RUNNING"}, 10)


def test_waiting_ends_at_the_deadline(rest: FlinkRest, httpserver: HTTPServer) -> None:
    httpserver.expect_request(f"/jobs/{JOB}").respond_with_json({"state": "RESTARTING", "vertices": []})
    httpserver.expect_request(f"/jobs/{JOB}/exceptions").respond_with_json({})
    with pytest.raises(LocalStackError, match=r"RESTARTING .* after 0\.3 s, not CANCELED: no exception recorded"):
        rest.wait_for_state(JOB, {"CANCELED"}, 0.3)


def test_stop_returns_the_savepoint_and_does_not_drain(rest: FlinkRest, httpserver: HTTPServer) -> None:
    httpserver.expect_ordered_request(
        f"/jobs/{JOB}/stop", method="POST", json={"targetDirectory": "file:///s", "drain": False}
    ).respond_with_json({"request-id": "r1"}, status=202)
    path = f"/jobs/{JOB}/savepoints/r1"
    httpserver.expect_ordered_request(path).respond_with_json({"status": {"id": "IN_PROGRESS"}})
    httpserver.expect_ordered_request(path).respond_with_json(
        {"status": {"id": "COMPLETED"}, "operation": {"location": "file:///s/savepoint-1"}}
    )
    assert rest.stop(JOB, "file:///s") == "file:///s/savepoint-1"


def test_a_failed_savepoint_is_an_error(rest: FlinkRest, httpserver: HTTPServer) -> None:
    httpserver.expect_ordered_request(f"/jobs/{JOB}/savepoints", method="POST").respond_with_json({"request-id": "r1"})
    httpserver.expect_ordered_request(f"/jobs/{JOB}/savepoints/r1").respond_with_json(
        {
            "status": {"id": "COMPLETED"},
            "operation": {"failure-cause": {"stack-trace": "disk full\n\tat java.A.b()\nCaused by: quota"}},
        }
    )
    with pytest.raises(LocalStackError, match=r"savepoints/r1: failed: disk full\nCaused by: quota$"):
        rest.savepoint(JOB)


def test_recovery_is_a_restart_that_is_over(rest: FlinkRest, httpserver: HTTPServer) -> None:
    answer_job(httpserver, "RUNNING", "RUNNING", since=7)  # has not missed its TaskManager yet
    answer_job(httpserver, "RESTARTING", "CANCELED", since=0)
    answer_job(httpserver, "RUNNING", "INITIALIZING", since=9)
    answer_job(httpserver, "RUNNING", "RUNNING", since=9)
    wait_for_recovery(rest, JOB, 7, 10)
    assert len(httpserver.log) == 4


def test_a_recovery_that_does_not_come_is_an_error(rest: FlinkRest, httpserver: HTTPServer) -> None:
    httpserver.expect_request(f"/jobs/{JOB}").respond_with_json(job("RUNNING", "RUNNING"))
    httpserver.expect_request(f"/jobs/{JOB}/exceptions").respond_with_json({})
    with pytest.raises(LocalStackError, match=r"did not recover within 0\.3 s: RUNNING, not restarted"):
        wait_for_recovery(rest, JOB, running_since(rest, JOB), 0.3)


def test_with_how_many_subtasks_a_job_was_submitted(rest: FlinkRest, httpserver: HTTPServer) -> None:
    config = {"jid": JOB, "execution-config": {"job-parallelism": 4, "object-reuse-mode": False}}
    httpserver.expect_request(f"/jobs/{JOB}/config").respond_with_json(config)
    assert rest.submitted_parallelism(JOB) == 4


def test_waiting_for_checkpoints_ends_at_the_number(rest: FlinkRest, httpserver: HTTPServer) -> None:
    for completed in (0, 1, 2):
        httpserver.expect_ordered_request(f"/jobs/{JOB}/checkpoints").respond_with_json(
            {"counts": {"completed": completed}, "latest": {"completed": {"id": completed}}}
        )
    assert wait_for_checkpoint(rest, JOB, 2, 10) == {"id": 2}


def test_metrics_are_requested_by_name(rest: FlinkRest, httpserver: HTTPServer) -> None:
    httpserver.expect_request(f"/jobs/{JOB}/metrics", query_string="get=a,b.c").respond_with_json(
        [{"id": "a", "value": "1"}, {"id": "b.c", "value": "2.5"}]
    )
    assert rest.job_metrics(JOB, ["a", "b.c"]) == {"a": "1", "b.c": "2.5"}


def test_a_setting_is_read_as_milliseconds_or_the_default_holds(rest: FlinkRest, httpserver: HTTPServer) -> None:
    settings = [{"key": "plain", "value": "1500"}, {"key": "with.unit", "value": "5 s"}]
    httpserver.expect_request("/jobmanager/config").respond_with_json(settings)
    assert [rest.setting_ms(key, 700) for key in ("plain", "with.unit", "missing")] == [1500, 700, 700]


def test_an_error_carries_path_and_message(rest: FlinkRest, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/jobs/nope").respond_with_json({"errors": ["Job nope not found"]}, status=404)
    with pytest.raises(LocalStackError, match="GET /jobs/nope: HTTP 404: Job nope not found"):
        rest.job("nope")


def test_a_response_that_is_not_json_is_an_error(rest: FlinkRest, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/overview").respond_with_data("<html>", status=502)
    with pytest.raises(LocalStackError, match="GET /overview: HTTP 502: <html>"):
        rest.overview()


def test_a_refused_connection_is_an_error() -> None:
    (port,) = free_ports(1)
    with pytest.raises(
        LocalStackError, match=rf"^Flink at http://127\.0\.0\.1:{port} does not answer: Connection refused$"
    ):
        FlinkRest(f"http://127.0.0.1:{port}").overview()


def test_many_metrics_are_split_into_requests_that_flink_accepts(rest: FlinkRest, httpserver: HTTPServer) -> None:
    def answer(request: Request) -> Response:
        assert len(request.full_path) < 4000
        values = [{"id": name, "value": name[-3:]} for name in request.args["get"].split(",")]
        return Response(json.dumps(values), content_type="application/json")

    httpserver.expect_request(f"/jobs/{JOB}/vertices/v/metrics").respond_with_handler(answer)
    names = [f"0.some/operator.with a long name.and.a.metric.number.{number:03}" for number in range(300)]

    assert rest.vertex_metrics(JOB, "v", names) == {name: name[-3:] for name in names}
    assert 5 < len(httpserver.log) < 20


PYTHON = """\
java.lang.RuntimeException: a task failed
\tat a.b.C.run(C.java:1)
Caused by: java.util.concurrent.ExecutionException: java.lang.RuntimeException: Error received from SDK harness
\tat a.b.D
Caused by: java.lang.RuntimeException: Error received from SDK harness: Traceback (most recent call last):
  File "worker.py", line 7, in process
    raise ValueError("no")
ValueError: no [while running 'HandleEvents']

\tat org.apache.beam.E
\t... 3 more
"""


@pytest.mark.parametrize(
    ("trace", "cause"),
    [
        ("a.b.X: outer\n\tat a.b\nCaused by: a.b.Y: inner\n\tat c.d\n\t... 2 more", "a.b.Y: inner"),
        ("a.b.X: alone\n\tat a.b", "a.b.X: alone"),
        (PYTHON, "ValueError: no [while running 'HandleEvents']"),
        ("", "no reason given"),
    ],
)
def test_the_root_cause_is_the_innermost_error_of_java_or_python(trace: str, cause: str) -> None:
    assert root_cause(trace) == cause


def test_a_host_that_is_not_there_and_one_that_is_silent_are_told_in_words() -> None:
    with pytest.raises(FlinkSilentError, match=r"^Flink at http://nowhere\.invalid:1 does not answer: [A-Z][a-z ]+"):
        FlinkRest("http://nowhere.invalid:1").overview()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(FlinkSilentError, match=r"does not answer: no answer in time$"):
            FlinkRest(f"http://127.0.0.1:{port}", 0.2).overview()
