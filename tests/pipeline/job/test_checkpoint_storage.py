"""Where checkpoints lie, seen in a real S3 API and on a disk."""

from __future__ import annotations

from pathlib import Path

import boto3
import pytest

from pipeline.job.checkpoint_storage import S3Error, retained_checkpoints, stored_savepoints
from runners.flink.local.processes import free_ports
from tests.faults.s3 import CREDENTIALS, LocalS3

A, B = "a" * 32, "b" * 32


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (CREDENTIALS | {"AWS_DEFAULT_REGION": "us-east-1"}).items():
        monkeypatch.setenv(name, value)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["checkpoints", ""])
def test_complete_checkpoints_are_found_in_s3(prefix: str) -> None:
    begin = f"{prefix}/" if prefix else ""
    complete = [f"{begin}{A}/chk-9/_metadata", f"{begin}{A}/chk-10/_metadata", f"{begin}{B}/chk-1/_metadata"]
    others = [f"{begin}{A}/shared/{n}" for n in range(5)]
    others += [f"{begin}{A}/taskowned/x", f"{begin}{A}/chk-11/x", f"{begin}notes/chk-1/_metadata"]
    with LocalS3() as s3:
        client = boto3.client("s3", endpoint_url=s3.endpoint)
        for key in complete + others:
            client.put_object(Bucket=s3.bucket, Key=key, Body=b"")
        found = retained_checkpoints(f"s3://{s3.bucket}/{prefix}", s3.endpoint)
    assert {(job, path) for path, _, job in found} == {
        (A, f"s3://{s3.bucket}/{begin}{A}/chk-9"),
        (A, f"s3://{s3.bucket}/{begin}{A}/chk-10"),
        (B, f"s3://{s3.bucket}/{begin}{B}/chk-1"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["savepoints", ""])
def test_complete_savepoints_are_found_in_s3_with_their_size(prefix: str) -> None:
    complete, broken = f"savepoint-{A[:6]}-0123456789ab", f"savepoint-{B[:6]}-0123456789ab"
    with LocalS3() as s3:
        client = boto3.client("s3", endpoint_url=s3.endpoint)
        for key in (f"{complete}/_metadata", f"{complete}/1f-2e", f"{broken}/1f-2e", "savepoint-notes/_metadata"):
            client.put_object(Bucket=s3.bucket, Key=f"{prefix}/{key}".lstrip("/"), Body=b"1234")
        folder = f"s3://{s3.bucket}/{prefix}".rstrip("/")
        ((path, _, job, size),) = stored_savepoints(f"{folder}/", s3.endpoint)
    assert (path, job, size) == (f"{folder}/{complete}", A[:6], 8)


def test_an_s3_that_is_not_there_is_an_error_that_names_the_folder() -> None:
    with pytest.raises(S3Error, match="s3://bucket/c: "):
        stored_savepoints("s3://bucket/c", f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(S3Error, match="s3://bucket/c: "):
        retained_checkpoints("s3://bucket/c", f"http://127.0.0.1:{free_ports(1)[0]}")


def test_complete_checkpoints_are_found_on_a_disk(tmp_path: Path) -> None:
    for name in (f"{A}/chk-2/_metadata", f"{A}/chk-3/x", f"{A}/shared/y", "notes/chk-1/_metadata"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    ((path, at_ms, job),) = retained_checkpoints(tmp_path.as_uri(), None)
    assert (path, job) == ((tmp_path / A / "chk-2").as_uri(), A)
    assert at_ms == pytest.approx((tmp_path / A / "chk-2" / "_metadata").stat().st_mtime * 1000, abs=1)


@pytest.mark.parametrize("folder", ["", "hdfs://nodes/checkpoints", "file:///no/such/folder"])
def test_what_cannot_be_seen_from_here_is_empty(folder: str) -> None:
    assert retained_checkpoints(folder, None) == []
    assert stored_savepoints(folder, None) == []
