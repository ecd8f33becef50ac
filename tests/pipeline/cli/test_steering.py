"""``savepoint``, ``savepoints``, ``resume`` and ``cancel``: what they print and do, against a fake Flink."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from pipeline.cli.main import main
from pipeline.job.jobs import ended_jobs
from pipeline.job.saved_state import SavedState, newest_state, newest_state_of_any
from runners.flink.local.processes import free_ports
from runners.flink.rest import FlinkRest

A, B, C = (letter * 32 for letter in "abc")


def job(job_id: str, name: str, state: str, start: int = 0) -> dict[str, Any]:
    return {"jid": job_id, "name": name, "state": state, "start-time": start}


def taken(path: str, at_ms: int, **changed: Any) -> dict[str, Any]:
    return {"external_path": path, "trigger_timestamp": at_ms, "is_savepoint": False, "discarded": False} | changed


def latest(**found: Any) -> dict[str, Any]:
    return {"latest": {"completed": None, "savepoint": None, "restored": None} | found}


class Cluster:
    """Flink's REST API as far as the commands ask."""

    def __init__(self, httpserver: HTTPServer) -> None:
        self._httpserver = httpserver
        self.master = f"{httpserver.host}:{httpserver.port}"
        self.rest = FlinkRest(f"http://{self.master}")
        self.has("/jobmanager/config", [
            {"key": "state.savepoints.dir", "value": "s3://b/savepoints"},
            {"key": "web.refresh-interval", "value": "1"},
        ])  # fmt: skip

    def has(self, path: str, answer: Any, **expected: Any) -> None:
        self._httpserver.expect_request(path, **expected).respond_with_json(answer)

    def answers(self, path: str, handler: Callable[[Request], Response]) -> None:
        self._httpserver.expect_request(path).respond_with_handler(handler)

    def jobs(self, *jobs: dict[str, Any]) -> None:
        self.has("/jobs/overview", {"jobs": list(jobs)})

    def changes(self) -> list[str]:
        return [f"{request.method} {request.path}" for request, _ in self._httpserver.log if request.method != "GET"]


@pytest.fixture
def flink(httpserver: HTTPServer) -> Cluster:
    return Cluster(httpserver)


Printed = Callable[[], tuple[str, str]]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    def both() -> tuple[str, str]:
        captured = capsys.readouterr()
        return captured.out, captured.err

    return both


def savepoint_taken(flink: Cluster, job_id: str, path: str) -> None:
    flink.has(f"/jobs/{job_id}/savepoints/r", {"status": {"id": "COMPLETED"}, "operation": {"location": path}})


def test_a_savepoint_prints_its_path_alone_on_standard_output(flink: Cluster, printed: Printed) -> None:
    flink.jobs(job(A, "a", "FAILED"), job(B, "b", "RUNNING"))
    wanted = {"target-directory": None, "cancel-job": False}
    flink.has(f"/jobs/{B}/savepoints", {"request-id": "r"}, method="POST", json=wanted)
    savepoint_taken(flink, B, "s3://b/savepoints/1")

    assert main(["savepoint", f"--flink_master={flink.master}"]) == 0

    out, err = printed()
    assert out == "s3://b/savepoints/1\n"
    assert err.splitlines()[0] == f"taking a savepoint of 'b' ({B})"


def test_stopping_waits_for_the_end_of_the_job(flink: Cluster, printed: Printed) -> None:
    flink.jobs(job(A, "a", "RUNNING"), job(B, "b", "RUNNING"))
    wanted = {"targetDirectory": "s3://other", "drain": False}
    flink.has(f"/jobs/{A}/stop", {"request-id": "r"}, method="POST", json=wanted)
    savepoint_taken(flink, A, "s3://other/1")
    flink.has(f"/jobs/{A}", {"state": "FINISHED", "vertices": []})

    options = ["--stop", "--job=a", "--directory=s3://other"]
    assert main(["savepoint", f"--flink_master={flink.master}", *options]) == 0

    out, err = printed()
    assert out == "s3://other/1\n"
    assert "the job has ended" in err


def test_a_savepoint_that_fails_says_what_the_job_does_now(flink: Cluster, printed: Printed) -> None:
    flink.jobs(job(A, "a", "RUNNING"))
    flink.has(f"/jobs/{A}/stop", {"request-id": "r"}, method="POST")
    failure = {"failure-cause": {"stack-trace": "no space left\n\tat java.A.b()"}}
    flink.has(f"/jobs/{A}/savepoints/r", {"status": {"id": "COMPLETED"}, "operation": failure})
    flink.has(f"/jobs/{A}", {"state": "RUNNING", "vertices": []})

    assert main(["savepoint", "--stop", f"--flink_master={flink.master}"]) == 1

    out, err = printed()
    assert out == ""
    assert "error: no savepoint of 'a', which is RUNNING: " in err
    assert "no space left" in err


def test_savepoints_are_those_that_the_cluster_remembers_and_those_in_the_folder(
    flink: Cluster, printed: Printed, tmp_path: Path
) -> None:
    flink.jobs(job(A, "a", "RUNNING"), job(B, "b", "FINISHED"))
    both, deleted, forgotten = (tmp_path / f"savepoint-{digits}-01234567abcd" for digits in (A[:6], B[:6], C[:6]))
    for folder, content in ((both, b"12"), (forgotten, b"12345")):
        folder.mkdir()
        (folder / "_metadata").write_bytes(content)
        (folder / "state").write_bytes(content)
        os.utime(folder / "_metadata", (7, 7))
    (tmp_path / f"savepoint-{C[:6]}-00000000dead").mkdir()  # one that failed has no _metadata
    elsewhere = f"s3://b/savepoint-{B[:6]}-01234567abcd"
    kept = {"status": "COMPLETED", "is_savepoint": True}
    flink.has(f"/jobs/{A}/checkpoints", {"history": [
        taken(f"file:{both}", 9000, state_size=2_500_000, **kept),
        taken("file:/c/chk-7", 8000, status="COMPLETED"),
        taken("file:/f", 8000, is_savepoint=True, status="FAILED"),
    ]})  # fmt: skip
    remembered = [taken(place, 8000, **kept) for place in (f"file:{deleted}", elsewhere)]
    flink.has(f"/jobs/{B}/checkpoints", {"history": remembered})

    command = ["savepoints", "list", f"--directory={tmp_path.as_uri()}", f"--flink_master={flink.master}"]
    assert main(command) == 0
    out, err = printed()
    days = f"{time.time() / 86400:,.1f}"
    unknown = ["restorable:", "unknown", "(give", "--bootstrap_servers)"]
    assert [line.split() for line in out.splitlines()] == [
        ["1970-01-01T00:00:09Z", days, "d", "ago", "2.5", "MB", A, f"file:{both}", *unknown],
        ["1970-01-01T00:00:08Z", days, "d", "ago", B, elsewhere, *unknown],
        ["1970-01-01T00:00:07Z", days, "d", "ago", "0.0", "MB", C[:6], forgotten.as_uri(), *unknown],
    ]
    assert err.startswith("3 savepoints; ")
    assert main([*command, "--json"]) == 0
    oldest = json.loads(printed()[0])[2]
    assert oldest.pop("age_seconds") == pytest.approx(time.time(), abs=1000)
    assert oldest == {
        "path": forgotten.as_uri(), "taken": 7000, "bytes": 10, "job": C[:6],
        "restorable": None, "partitions_deleted": None,
    }  # fmt: skip
    assert flink.changes() == []


NOW_S = time.time()


@pytest.fixture
def five(flink: Cluster, tmp_path: Path) -> list[str]:
    """Five savepoints, taken 1, 10, 20, 30 and 40 days ago; a running job has started from the oldest."""
    paths = []
    for number, days in enumerate((1, 10, 20, 30, 40)):
        folder = tmp_path / f"savepoint-{A[:6]}-{number:012d}"
        folder.mkdir()
        (folder / "_metadata").write_bytes(b"x")
        os.utime(folder / "_metadata", (NOW_S - days * 86400,) * 2)
        paths.append(folder.as_uri())
    flink.jobs(job(A, "a", "RUNNING"), job(B, "b", "FINISHED"))
    oldest = paths[4].replace("file:///", "file:/")
    flink.has(f"/jobs/{A}/checkpoints", {"history": [], **latest(restored=taken(oldest, 1))})
    flink.has(f"/jobs/{B}/checkpoints", {"history": [], **latest(restored=taken(paths[3], 1))})
    return paths


def prune(flink: Cluster, folder: Path, *options: str) -> int:
    return main(["savepoints", "prune", f"--directory={folder.as_uri()}", f"--flink_master={flink.master}", *options])


def test_prune_says_what_would_go_and_deletes_nothing_without_yes(
    flink: Cluster, five: list[str], printed: Printed, tmp_path: Path
) -> None:
    assert prune(flink, tmp_path, "--older_than=15d", "--keep=1") == 2
    out, err = printed()
    assert [line.split()[-1] for line in out.splitlines()] == [five[2], five[3]]
    assert "--yes is missing: it would delete these 2 of 5 savepoints" in err
    assert "1 stay: a job that is not over started from them" in err
    assert flink.changes() == []


@pytest.mark.parametrize(
    ("options", "going"),
    [
        (["--older_than=15d"], [3]),  # of the newest three, one is older
        (["--older_than=5d", "--keep=1"], [1, 2, 3]),
        (["--older_than=5d", "--keep=5"], []),
        (["--older_than=60d", "--keep=1"], []),
    ],
)
def test_prune_deletes_old_ones_but_the_newest_through_the_cluster(
    flink: Cluster, five: list[str], printed: Printed, tmp_path: Path, options: list[str], going: list[int]
) -> None:
    asked = []

    def dispose(request: Request) -> Response:
        asked.append(json.loads(request.data)["savepoint-path"])
        return Response(json.dumps({"request-id": "r"}), content_type="application/json")

    flink.answers("/savepoint-disposal", dispose)
    flink.has("/savepoint-disposal/r", {"status": {"id": "COMPLETED"}, "operation": {}})
    assert prune(flink, tmp_path, "--yes", *options) == 0
    assert asked == [five[number] for number in going]
    err = printed()[1]
    wanted = (
        f"{len(going)} savepoints deleted, {5 - len(going)} are left" if going else "nothing to delete: 5 savepoints"
    )
    assert wanted in err


def test_prune_says_which_were_deleted_when_the_cluster_refuses(
    flink: Cluster, five: list[str], printed: Printed, tmp_path: Path
) -> None:
    flink.has("/savepoint-disposal", {"request-id": "r"})
    failure = {"failure-cause": {"stack-trace": "java.io.IOException: access denied"}}
    flink.has("/savepoint-disposal/r", {"status": {"id": "COMPLETED"}, "operation": failure})
    assert prune(flink, tmp_path, "--yes", "--older_than=15d", "--keep=1") == 1
    assert f"error: 0 of 2 savepoints deleted, then {five[2]}: " in (err := printed()[1])
    assert "access denied" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--older_than=soon"], "--older_than is 'soon', allowed: a duration is a whole number and a unit"),
        (["--older_than=1d", "--keep=0"], "--keep is 0, allowed: 1 to 1000"),
    ],
)
def test_what_prune_refuses(options: list[str], message: str, printed: Printed) -> None:
    assert main(["savepoints", "prune", "--flink_master=f:1", *options]) == 2
    assert message in printed()[1]


@pytest.mark.parametrize(
    ("jobs", "options", "message"),
    [
        ([], [], "no job runs at http://"),
        ([job(A, "a", "CANCELED")], [], "no job runs at http://"),
        ([job(A, "a", "RUNNING"), job(B, "b", "RUNNING")], [], f"2 jobs run at URL, 'a' ({A}), 'b' ({B}): name one"),
        ([job(A, "a", "RUNNING"), job(B, "a", "RUNNING")], ["--job=a"], f"'a' ({A}), 'a' ({B}): name one with --job"),
        ([job(A, "a", "RUNNING")], ["--job=x"], f"no job 'x' at URL, 'a' ({A}) runs: see --job"),
        ([], ["--job=x"], "no job 'x' at URL, none at all runs: see --job"),
        ([job(A, "a", "FAILED")], ["--job=a"], "job 'a' does not run at URL, it is FAILED"),
    ],
)
@pytest.mark.parametrize("command", [["savepoint"], ["cancel", "--yes"]], ids=["savepoint", "cancel"])
def test_an_unknown_job_is_an_error_that_names_the_others(
    flink: Cluster, printed: Printed, jobs: list[Any], options: list[str], message: str, command: list[str]
) -> None:
    flink.jobs(*jobs)
    assert main([*command, f"--flink_master={flink.master}", *options]) == 1
    out, err = printed()
    assert out == ""
    assert err.count("\n") == 1
    assert message.replace("URL", f"http://{flink.master}") in err
    assert flink.changes() == []


@pytest.mark.parametrize("command", ["savepoint", "cancel", "resume"])
def test_a_cluster_that_does_not_answer_is_an_error_in_one_line(command: str, printed: Printed) -> None:
    (port,) = free_ports(1)
    launch = ["--bootstrap_servers=b:1", "--rules=r"] if command == "resume" else []
    assert main([command, f"--flink_master=127.0.0.1:{port}", *launch]) == 1
    out, err = printed()
    assert (out, err.count("\n")) == ("", 1)
    assert f"127.0.0.1:{port}" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["savepoint"], "--flink_master is missing: give HOST:PORT"),
        (["cancel", "--flink_master=x"], "--flink_master is 'x', allowed: HOST:PORT"),
        (["savepoint", "--flink_master=h:1", "--job_nam=x"], "unknown option '--job_nam': did you mean --job?"),
        (["savepoint", "--flink_master=h:1", "--timeout_seconds=0"], "--timeout_seconds is 0, allowed: 1 to 86400"),
        (
            ["savepoint", "--flink_master=h:1", "--timeout_seconds=soon"],
            "--timeout_seconds is 'soon', allowed: a number",
        ),
        (["resume", "--bootstrap_servers=b:1", "--rules=r"], "--flink_master is missing"),
        (["resume", "--flink_master=h:1"], "--bootstrap_servers is missing"),
        (
            ["resume", "--flink_master=h:1", "--bootstrap_servers=b:1", "--rules=r", "--start_without_state"],
            "--start_without_state is of no use with resume",
        ),
        (
            [
                "resume",
                "--flink_master=h:1",
                "--bootstrap_servers=b:1",
                "--rules=r",
                "--savepoint_path=s",
                "--from_job=j",
            ],
            "--savepoint_path and --from_job are both given",
        ),
        (
            ["resume", "--runner=DirectRunner", "--bootstrap_servers=b:1", "--rules=r", "--savepoint_path=s"],
            "FlinkRunner",
        ),
    ],
)
def test_an_option_that_cannot_be_used_ends_with_2_and_a_line(
    arguments: list[str], message: str, printed: Printed
) -> None:
    assert main(arguments) == 2
    out, err = printed()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_without_a_folder_for_savepoints_one_has_to_be_given(httpserver: HTTPServer, printed: Printed) -> None:
    httpserver.expect_request("/jobmanager/config").respond_with_json([])
    httpserver.expect_request("/jobs/overview").respond_with_json({"jobs": [job(A, "a", "RUNNING")]})
    assert main(["savepoint", f"--flink_master={httpserver.host}:{httpserver.port}"]) == 2
    assert "--directory is missing, and the cluster has no state.savepoints.dir" in printed()[1]


def cancellable(flink: Cluster, retained: bool = True) -> None:
    flink.jobs(job(A, "a", "RUNNING"))
    flink.has(f"/jobs/{A}/checkpoints/config", {"externalization": {"delete_on_cancellation": not retained}})
    flink.has(f"/jobs/{A}/checkpoints", latest(completed=taken("s3://c/chk-7", 5000)))
    flink.has(f"/jobs/{A}", {"state": "CANCELED", "vertices": []}, method="GET")
    flink.has(f"/jobs/{A}", {}, method="PATCH", query_string="mode=cancel")


def test_nothing_is_cancelled_without_yes(flink: Cluster, printed: Printed) -> None:
    cancellable(flink)
    assert main(["cancel", f"--flink_master={flink.master}"]) == 2
    out, err = printed()
    assert out == ""
    assert f"--yes is missing: it would cancel 'a' ({A}); its newest state is the checkpoint of 1970-" in err
    assert "s3://c/chk-7" in err
    assert flink.changes() == []


def test_cancel_prints_where_to_go_on_from(flink: Cluster, printed: Printed) -> None:
    cancellable(flink)
    assert main(["cancel", "--yes", f"--flink_master={flink.master}"]) == 0
    assert printed()[0] == "s3://c/chk-7\n"
    assert flink.changes() == [f"PATCH /jobs/{A}"]


def test_cancel_promises_nothing_where_checkpoints_are_deleted(flink: Cluster, printed: Printed) -> None:
    cancellable(flink, retained=False)
    assert main(["cancel", f"--flink_master={flink.master}"]) == 2
    assert "its checkpoints would be deleted with it" in printed()[1]
    assert main(["cancel", "--yes", f"--flink_master={flink.master}"]) == 0
    out, err = printed()
    assert out == ""
    assert "there is no state to go on from" in err


SAVED = taken("s3://s/1", 2000, is_savepoint=True)


@pytest.mark.parametrize(
    ("state", "found", "wanted"),
    [
        ("FINISHED", latest(completed=taken("s3://c/1", 3000), savepoint=SAVED), "s3://s/1"),
        ("CANCELED", latest(completed=taken("s3://c/1", 3000), savepoint=SAVED), "s3://c/1"),
        ("FAILED", latest(completed=taken("s3://c/1", 1000), savepoint=SAVED), "s3://s/1"),
        ("FAILED", latest(completed=taken("s3://c/1", 1000, discarded=True)), None),
        ("FAILED", latest(), None),
        (
            "FAILED",
            latest(restored={"external_path": "s3://r/1", "restore_timestamp": 1, "is_savepoint": True}),
            "s3://r/1",
        ),
        (
            "FAILED",
            latest(
                completed=taken("s3://c/1", 2),
                restored={"external_path": "s3://r/1", "restore_timestamp": 9, "is_savepoint": True},
            ),
            "s3://c/1",
        ),
    ],
)
def test_the_newest_state_of_a_job_is_the_newest_that_is_still_there(
    flink: Cluster, state: str, found: dict[str, Any], wanted: str | None
) -> None:
    flink.has(f"/jobs/{A}/checkpoints", found)
    newest = newest_state(flink.rest, job(A, "a", state))
    assert (newest and newest.path) == wanted


def test_an_upgrade_that_failed_before_it_began_does_not_hide_the_job_before_it(flink: Cluster) -> None:
    flink.jobs(job(A, "a", "FINISHED", 1), job(C, "other", "RUNNING", 9), job(B, "a", "FAILED", 2))
    flink.has(f"/jobs/{A}/checkpoints", latest(savepoint=SAVED))
    flink._httpserver.expect_request(f"/jobs/{B}/checkpoints").respond_with_json({"errors": ["none"]}, status=404)
    jobs = ended_jobs(flink.rest, "a")
    assert [job["jid"] for job in jobs] == [B, A]
    assert newest_state_of_any(flink.rest, jobs) == SavedState("savepoint", "s3://s/1", 2000, A)


LAUNCH = ["--bootstrap_servers=b:1", "--rules=r", "--job_name=a"]


def test_resume_launches_with_what_it_has_found_and_all_other_options(
    flink: Cluster, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.launch import run

    launched: list[list[str]] = []

    def launch(argv: list[str]) -> int:
        launched.append(argv)
        return 7

    flink.jobs(job(A, "a", "CANCELED", 1))
    flink.has(f"/jobs/{A}/checkpoints", latest(completed=taken("s3://c/chk-7", 5000)))
    monkeypatch.setattr(run, "launch", launch)
    master = f"--flink_master={flink.master}"

    assert main(["resume", master, *LAUNCH, "--parallelism=4"]) == 7
    assert launched[0][-1] == "--savepoint_path=s3://c/chk-7"
    assert set(launched[0][:-1]) == {"--runner=FlinkRunner", master, *LAUNCH, "--parallelism=4"}
    assert printed()[1] == f"going on from the checkpoint of 1970-01-01T00:00:05Z of job {A}: s3://c/chk-7\n"

    assert main(["resume", master, *LAUNCH, "--savepoint_path=s3://x"]) == 7
    assert set(launched[1]) == {"--runner=FlinkRunner", master, *LAUNCH, "--savepoint_path=s3://x"}


def test_resume_does_not_start_beside_a_job_that_runs(flink: Cluster, printed: Printed) -> None:
    flink.jobs(job(A, "a", "CANCELED", 1), job(B, "a", "RESTARTING", 2))
    assert main(["resume", f"--flink_master={flink.master}", *LAUNCH]) == 2
    assert f"--job_name is 'a', and job {B} of that name is RESTARTING" in printed()[1]


def retained(folder: Path, job_id: str, number: int, complete: bool = True) -> str:
    checkpoint = folder / job_id / f"chk-{number}"
    checkpoint.mkdir(parents=True)
    if complete:
        (checkpoint / "_metadata").write_bytes(b"")
    return checkpoint.as_uri()


def test_a_job_that_the_cluster_has_forgotten_is_found_in_its_checkpoint_folder(
    httpserver: HTTPServer, printed: Printed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pipeline.launch import run

    launched: list[str] = []
    monkeypatch.setattr(run, "launch", lambda argv: launched.append(argv[-1]) or 0)
    folder = {"key": "state.checkpoints.dir", "value": tmp_path.as_uri()}
    httpserver.expect_request("/jobmanager/config").respond_with_json([folder])
    httpserver.expect_request("/jobs/overview").respond_with_json({"jobs": []})
    command = ["resume", f"--flink_master={httpserver.host}:{httpserver.port}", *LAUNCH]

    assert main(command) == 1
    assert "no job 'a' is remembered at " in printed()[1]

    newest = retained(tmp_path, A, 12)
    retained(tmp_path, A, 13, complete=False)
    retained(tmp_path, B, 99)
    assert main(command) == 1
    err = printed()[1]
    assert f"of job {A}: {newest}" in err
    assert f"of job {B}: " in err
    assert main([*command, f"--from_job={A}"]) == 0
    assert launched == [f"--savepoint_path={newest}"]
    assert f"has forgotten job {A}" in printed()[1]


def test_every_command_has_a_help_text(printed: Printed) -> None:
    for command in ("savepoint", "resume", "cancel"):
        assert main([command, "--help"]) == 0
        assert f"event-trigger {command}" in printed()[0]
