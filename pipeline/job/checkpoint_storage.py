"""Where a cluster's checkpoints lie, S3 or a folder: finding complete ones, and whether S3 can be written."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from pipeline.errors import PipelineError

_ANSWER_S: Final = 5.0
S3_SCHEMES: Final = ("s3", "s3a", "s3p")


class S3Error(PipelineError, RuntimeError):
    """S3 refused a request or did not answer; the message is S3's."""


def write_to_s3(folder: str, endpoint: str | None) -> str | None:
    """Write an object below ``folder`` (``s3://bucket/prefix``) and remove it.

    Credentials and region are found as every AWS program finds them.

    Returns:
        The ``Date`` header of S3's answer.

    Raises:
        S3Error: S3 refused the object or did not answer.
    """
    place = urlsplit(folder)
    key = f"{place.path.strip('/')}/doctor-{uuid.uuid4().hex}".lstrip("/")
    with _s3_errors():
        client = _s3_client(endpoint)
        answer = client.put_object(Bucket=place.netloc, Key=key, Body=b"written by event-trigger doctor")
        client.delete_object(Bucket=place.netloc, Key=key)
    date: str | None = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return date


def _s3_client(endpoint: str | None) -> Any:
    import boto3
    import botocore.config

    timeouts: dict[str, Any] = {"connect_timeout": _ANSWER_S, "read_timeout": _ANSWER_S}
    style = {} if endpoint is None else {"s3": {"addressing_style": "path"}}
    config = botocore.config.Config(retries={"total_max_attempts": 1}, **timeouts, **style)
    return boto3.client("s3", endpoint_url=endpoint, config=config)


# The metadata file of a complete checkpoint, in its job's folder below state.checkpoints.dir.
_METADATA: Final = re.compile(r"(?:^|/)([0-9a-f]{32})/chk-\d+/_metadata$")


def retained_checkpoints(folder: str, endpoint: str | None) -> list[tuple[str, int, str]]:
    """The complete checkpoints below a cluster's checkpoint folder, as far as this machine can see them.

    A ``file://`` folder that only the cluster's machines have looks empty from here.

    Returns:
        Of each checkpoint its path, when it was completed [ms since the epoch] and the id of its job.

    Raises:
        S3Error: the folder is in S3, which refuses or does not answer.
    """
    place = urlsplit(folder)
    if place.scheme in S3_SCHEMES:
        return list(_checkpoints_in_s3(folder.rstrip("/"), place.netloc, place.path.strip("/"), endpoint))
    if place.scheme not in ("", "file") or not place.path:
        return []
    files = Path(unquote(place.path)).glob("*/chk-*/_metadata")
    return [
        (file.parent.as_uri(), round(file.stat().st_mtime * 1000), match[1])
        for file in files
        if (match := _METADATA.search(str(file)))
    ]


def is_visible(folder: str) -> bool:
    """Whether this machine sees what lies in a folder: it is in S3, or exists here."""
    place = urlsplit(folder)
    return place.scheme in S3_SCHEMES or (place.scheme in ("", "file") and Path(unquote(place.path)).is_dir())


# A savepoint's folder: Flink names it by the first digits of its job's id.
_SAVEPOINT: Final = re.compile(r"(savepoint-([0-9a-f]{6})-[0-9a-f]+)/(.*)")


def stored_savepoints(folder: str, endpoint: str | None) -> list[tuple[str, int, str, int]]:
    """The complete savepoints in a folder, as far as this machine can see them.

    Returns:
        Of each savepoint its path, when it was completed [ms since the epoch], the first digits of its job's id, its
        size [bytes].

    Raises:
        S3Error: the folder is in S3, which refuses or does not answer.
    """
    place = urlsplit(folder)
    if place.scheme in S3_SCHEMES:
        files = _files_in_s3(folder, place.netloc, place.path.strip("/"), endpoint)
    elif place.scheme in ("", "file") and place.path:
        root = Path(unquote(place.path))
        paths = (path for path in root.glob("savepoint-*/*") if path.is_file())
        files = ((str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime) for path in paths)
    else:
        return []
    sizes = Counter[tuple[str, str]]()
    completed: dict[tuple[str, str], int] = {}
    for name, size, at_s in files:
        if match := _SAVEPOINT.fullmatch(name):
            sizes[match[1], match[2]] += size
            if match[3] == "_metadata":
                completed[match[1], match[2]] = round(at_s * 1000)
    base = folder.rstrip("/")
    return [(f"{base}/{name}", at_ms, job, sizes[name, job]) for (name, job), at_ms in completed.items()]


def _files_in_s3(folder: str, bucket: str, prefix: str, endpoint: str | None) -> Iterator[tuple[str, int, float]]:
    """Name, size and time of the files of savepoints in a folder."""
    root = f"{prefix}/" if prefix else ""
    with _s3_errors(f"{folder}: "):
        for page in _pages(_s3_client(endpoint), Bucket=bucket, Prefix=f"{root}savepoint-"):
            for found in page.get("Contents", []):
                yield found["Key"].removeprefix(root), found["Size"], found["LastModified"].timestamp()


def _checkpoints_in_s3(folder: str, bucket: str, prefix: str, endpoint: str | None) -> Iterator[tuple[str, int, str]]:
    root = f"{prefix}/" if prefix else ""
    with _s3_errors(f"{folder}: "):
        client = _s3_client(endpoint)
        for job in _s3_folders(client, bucket, root):
            for checkpoint in _s3_folders(client, bucket, f"{job}chk-"):
                key = f"{checkpoint}_metadata"
                objects = client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", [])
                match = _METADATA.search(key)
                if objects and match:
                    path = f"{folder}/{checkpoint.removeprefix(root).rstrip('/')}"
                    yield path, round(objects[0]["LastModified"].timestamp() * 1000), match[1]


@contextlib.contextmanager
def _s3_errors(beginning: str = "") -> Iterator[None]:
    """Turn errors of S3's client into one-line ``S3Error``s whose message begins so."""
    import botocore.exceptions

    try:
        yield
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise S3Error(f"{beginning}{' '.join(str(error).split())}") from None


def _pages(client: Any, **arguments: str) -> Iterator[dict[str, Any]]:
    yield from client.get_paginator("list_objects_v2").paginate(**arguments)


def _s3_folders(client: Any, bucket: str, prefix: str) -> Iterator[str]:
    """One level of S3's folders; without a delimiter S3 would list the thousands of objects of each checkpoint."""
    for page in _pages(client, Bucket=bucket, Prefix=prefix, Delimiter="/"):
        yield from (folder["Prefix"] for folder in page.get("CommonPrefixes", []))
