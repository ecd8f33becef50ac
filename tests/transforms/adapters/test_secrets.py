from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from transforms.adapters import secrets as secret_references
from transforms.adapters.secrets import Secret, Token, read_secret
from transforms.domain.base.secret_references import SecretError, is_local_reference, is_reference

LOCAL = ["env:TOKEN", "env:_a1", "file:/run/secrets/token", "file:/a b"]
AWS = [
    "aws-secret:crm",
    "aws-secret:prod/crm_key+1@x.y#current",
    "aws-secret:arn:aws:secretsmanager:eu-central-1:123456789012:secret:prod/crm-AbCdEf#a.b",
]
NONE = ["", "s3cr3t", "env:", "env:1A", "env:A B", "env:A\n", "file:", "file:relative", "ENV:A", "http://x"]


def test_references_to_variables_and_files_and_aws_secrets() -> None:
    assert [text for text in LOCAL + AWS + NONE if is_local_reference(text)] == LOCAL
    assert [text for text in LOCAL + AWS + NONE if is_reference(text)] == LOCAL + AWS


@pytest.mark.parametrize("text", ["aws-secret:", "aws-secret:a b", "aws-secret:a#", "aws-secret:a#b#c", "aws-secret:ä"])
def test_what_is_no_name_of_an_aws_secret_is_no_reference(text: str) -> None:
    assert not is_reference(text)


@pytest.fixture
def aws(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A fake AWS Secrets Manager over HTTP: what it holds by name; an int is the status of a failure."""
    held: dict[str, Any] = {}

    def answer(request: Request) -> Response:
        assert request.headers["X-Amz-Target"] == "secretsmanager.GetSecretValue"
        found = held.get(json.loads(request.data)["SecretId"], 400)
        if isinstance(found, int):
            return Response(json.dumps({"__type": "ResourceNotFoundException", "Message": "s3cr3t"}), found)
        return Response(json.dumps(found), content_type="application/x-amz-json-1.1")

    httpserver.expect_request("/", method="POST").respond_with_handler(answer)
    for name, value in {
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": httpserver.url_for("/"),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    return held


def test_a_secret_comes_from_aws_whole_or_one_key_of_it(aws: dict[str, Any]) -> None:
    aws["crm"] = {"SecretString": "whsec_abc"}
    aws["both"] = {"SecretString": json.dumps({"current": "whsec_new", "number": 1})}
    assert read_secret("aws-secret:crm", str) == "whsec_abc"
    assert read_secret("aws-secret:both#current", str) == "whsec_new"
    assert Token("aws-secret:both#current").value == "whsec_new"


def test_the_region_of_an_arn_is_where_it_is_asked_for(
    aws: dict[str, Any], httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    arn = "arn:aws:secretsmanager:eu-west-3:123456789012:secret:crm-AbCdEf"
    aws[arn] = {"SecretString": "x"}
    assert read_secret(f"aws-secret:{arn}", str) == "x"
    assert "/eu-west-3/secretsmanager/" in httpserver.log[0][0].headers["Authorization"]
    with pytest.raises(SecretError, match=r"^aws-secret:crm: NoRegionError$"):
        read_secret("aws-secret:crm", str)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none", "ResourceNotFoundException"),
        ("text#key", "not a JSON object, so it has no keys"),
        ("list#key", "not a JSON object, so it has no keys"),
        ("object#key", "no text under the key 'key'"),
        ("object#number", "no text under the key 'number'"),
        ("binary", "binary, allowed is text"),
        ("latin", "not ASCII"),
    ],
)
def test_an_aws_secret_that_cannot_be_used_is_named_and_not_shown(aws: dict[str, Any], name: str, reason: str) -> None:
    aws["text"] = {"SecretString": "s3cr3t"}
    aws["list"] = {"SecretString": '["s3cr3t"]'}
    aws["object"] = {"SecretString": '{"number": 5, "other": "s3cr3t"}'}
    aws["binary"] = {"SecretBinary": "czNjcjN0"}
    aws["latin"] = {"SecretString": "s3cr3tß"}
    with pytest.raises(SecretError) as caught:
        read_secret(f"aws-secret:{name}", str)
    assert str(caught.value) == f"aws-secret:{name}: {reason}"
    assert caught.value.__cause__ is None


def test_without_an_aws_secret_its_client_is_not_imported() -> None:
    code = "import sys, transforms.adapters.webhook_sender.send_pool; sys.exit('boto3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def anything(text: str) -> None:
    if not text:
        raise SecretError("empty")


@pytest.mark.timeout(30)
def test_a_file_that_may_have_no_end_is_not_read(tmp_path: Path) -> None:
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    large.write_text("s" * (64 * 1024 + 1))
    for path, reason in (
        (Path("/dev/zero"), "no regular file"),
        (pipe, "no regular file"),
        (tmp_path, "Is a directory"),
        (large, "65537 bytes, allowed are 65536"),
    ):
        with pytest.raises(SecretError, match=f"^file:{path}: {reason}$"):
            read_secret(f"file:{path}", anything)


def test_a_link_leads_to_a_secret(tmp_path: Path) -> None:
    # As Kubernetes mounts one.
    (tmp_path / "..data_1").mkdir()
    (tmp_path / "..data_1" / "password").write_text("s" * (64 * 1024))
    (tmp_path / "..data").symlink_to("..data_1")
    (tmp_path / "password").symlink_to("..data/password")
    assert read_secret(f"file:{tmp_path}/password", anything) == "s" * (64 * 1024)


def test_a_secret_is_read_when_asked_for_and_again_when_it_is_old(tmp_path: Path) -> None:
    path, clock = tmp_path / "secret", FakeClock()
    secret = Secret(f"file:{path}", anything, 60.0, clock)
    path.write_text(" old\n")
    assert secret.text() == "old"
    path.write_text("new")
    clock.now_s += 59.9
    assert secret.text() == "old"
    clock.now_s += 0.1
    assert secret.text() == "new"


@pytest.mark.parametrize("broken", [None, "", " \n"])
def test_a_secret_that_cannot_be_read_again_stays_in_use(tmp_path: Path, broken: str | None) -> None:
    path, clock = tmp_path / "secret", FakeClock()
    secret = Secret(f"file:{path}", anything, 60.0, clock)
    path.write_text("old")
    assert secret.text() == "old"
    path.unlink() if broken is None else path.write_text(broken)
    clock.now_s += 60
    assert secret.text() == "old"
    path.write_text("new")
    assert secret.text() == "old"  # it is not asked for all the time
    clock.now_s += 60
    assert secret.text() == "new"


def test_a_secret_that_was_never_there_is_an_error_each_time_until_it_is(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    secret = Secret(f"file:{path}", anything)
    for _ in range(2):
        with pytest.raises(SecretError, match="No such file"):
            secret.text()
    path.write_text("there")
    assert secret.text() == "there"


def test_one_caller_reads_it_again_and_the_others_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, reading, go = FakeClock(), threading.Event(), threading.Event()
    monkeypatch.setattr(secret_references, "read_secret", lambda _, __: "old")
    secret = Secret("env:A", anything, 60.0, clock)
    assert secret.text() == "old"

    def slowly(*_: object) -> str:
        reading.set()
        assert go.wait(10)
        return "new"

    monkeypatch.setattr(secret_references, "read_secret", slowly)
    clock.now_s += 60
    with ThreadPoolExecutor(1) as other:
        reader = other.submit(secret.text)
        assert reading.wait(10)
        assert secret.text() == "old"
        go.set()
        assert reader.result(10) == secret.text() == "new"


def test_a_secret_does_not_show_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "s3cr3t")
    secret = Secret("env:KEY", anything)
    assert secret.text() == "s3cr3t"
    assert repr(secret) == str(secret) == "Secret('env:KEY')"
