from __future__ import annotations

from pathlib import Path

import pytest

from transforms.domain.base.durations import Duration
from transforms.domain.webhooks.destinations import (
    Destination,
    DestinationError,
    SecretValue,
    load_destinations,
    read_destinations,
)
from transforms.domain.webhooks.retries import RetrySchedule
from transforms.domain.webhooks.url_policy import EgressPolicy

PUBLIC = EgressPolicy()
GOOD = """\
destinations:
  - name: crm
    url: https://crm.example.com/hooks
    secrets: [env:CRM_KEY]
"""
FULL = """\
destinations:
  - name: crm
    url: https://crm.example.com/hooks?source=events
    secrets: ["aws-secret:prod/crm#new", "aws-secret:prod/crm#old"]
    headers:
      X-Source: event trigger
      Authorization: {secret: "file:/run/secrets/crm"}
    timeout: 5s
    rate: 50
    max_in_flight: 4
    retry: {first: 30s, factor: 3, longest: 1h, give_up_after: 1d}
  - name: mail
    url: https://mail.example.com
    secrets: [env:MAIL_KEY]
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "destinations.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_every_field_is_read(tmp_path: Path) -> None:
    crm, mail = load_destinations(write(tmp_path, FULL), PUBLIC)
    assert crm == Destination(
        name="crm",
        url="https://crm.example.com/hooks?source=events",
        secrets=("aws-secret:prod/crm#new", "aws-secret:prod/crm#old"),
        headers={"X-Source": "event trigger", "Authorization": SecretValue(secret="file:/run/secrets/crm")},
        timeout=Duration(5000),
        rate=50.0,
        max_in_flight=4,
        retry=RetrySchedule(
            first=Duration(30_000), factor=3.0, longest=Duration(3_600_000), give_up_after=Duration(86_400_000)
        ),
    )
    assert (mail.timeout, mail.rate, mail.max_in_flight, mail.retry) == (Duration(10_000), None, 8, RetrySchedule())


# Text of the file, line and message of the problem.
BAD = [
    ("", None, "0 documents, allowed is one with a list of destinations"),
    (GOOD + "---\n" + GOOD, None, "2 documents, allowed is one"),
    ("- name: crm\n", 1, "a destinations file is one field, destinations, with a list"),
    ("destinations: {}\n", 1, "a destinations file is one field"),
    (GOOD + "other: 1\n", 1, "a destinations file is one field"),
    ("destinations: [\n", 2, "not YAML: "),
    (b"\xff", None, "not YAML: "),
    ("destinations:\n  - whsec_s3cr3t\n", 2, "destinations.0: allowed is a mapping"),
    (GOOD.replace("    url: https://crm.example.com/hooks\n", ""), 2, "destinations.0.url is missing"),
    (GOOD.replace("crm\n", "Crm\n"), 2, "destinations.0.name is 'Crm': allowed is 1 to 64 of a-z"),
    (GOOD + GOOD.partition("\n")[2], 5, "destinations.1.name: 'crm' is taken; names are unique"),
    (GOOD.replace("https://", "http://"), 3, "destinations.0.url: scheme is 'http', allowed is https"),
    (GOOD.replace("crm.example.com", "10.0.0.1"), 3, "destinations.0.url: address 10.0.0.1 is not public"),
    (GOOD.replace("https://", "https://u:s3cr3t@"), 3, "destinations.0.url: not a URL of the allowed form"),
    (
        GOOD.replace("https://crm.example.com/hooks", "[s3cr3t]"),
        3,
        "destinations.0.url: allowed is text",
    ),
    (GOOD.replace("env:CRM_KEY", "whsec_s3cr3t"), 4, "destinations.0.secrets.0: a reference to a secret, never the"),
    (GOOD.replace("[env:CRM_KEY]", "whsec_s3cr3t"), 4, "destinations.0.secrets: allowed is a list"),
    (GOOD.replace("[env:CRM_KEY]", "[]"), 4, "destinations.0.secrets: allowed is 1 item or more"),
    (
        GOOD.replace("secrets: [env:CRM_KEY]", "secret: whsec_s3cr3t"),
        4,
        "secret: no such field; did you mean 'secrets'",
    ),
    (GOOD + "    headers: {X-A: 5}\n", 5, "destinations.0.headers.X-A: allowed is text"),
    (GOOD + '    headers: {X-A: "s3cr3t\\r\\nX-B: 1"}\n', 5, "destinations.0.headers.X-A: not visible ASCII"),
    (GOOD + '    headers: {X-A: "s3cr3tß"}\n', 5, "destinations.0.headers.X-A: not visible ASCII"),
    (GOOD + '    headers: {X-A: " s3cr3t"}\n', 5, "destinations.0.headers.X-A: not visible ASCII"),
    (GOOD + '    headers: {X-A: ""}\n', 5, "destinations.0.headers.X-A: not visible ASCII"),
    (GOOD + "    headers: {X A: s3cr3t}\n", 5, "destinations.0.headers.X A: a header's name is 1 to 64 letters"),
    (GOOD + '    headers: {"X-A:": s3cr3t}\n', 5, "a header's name is 1 to 64 letters"),
    *(
        (GOOD + f"    headers: {{{name}: s3cr3t}}\n", 5, f"headers.{name}: a header that is set for every webhook")
        for name in ("Webhook-Id", "HOST", "Content-Length", "Content-Type", "Transfer-Encoding", "Connection")
    ),
    (GOOD + "    headers: {X-A: s3cr3t, x-a: s3cr3t}\n", 2, "destinations.0: header 'x-a' is given twice"),
    (GOOD + "    headers: {X-A: {secret: s3cr3t}}\n", 5, "destinations.0.headers.X-A.secret: a reference to a secret"),
    (GOOD + "    headers: {X-A: {value: s3cr3t}}\n", 5, "destinations.0.headers.X-A.secret is missing"),
    (GOOD + "    timeout: 2m\n", 2, "destinations.0: timeout is 2m, allowed are up to 1m"),
    (GOOD + "    timeout: 5\n", 5, "destinations.0.timeout is 5: a duration is a whole number and a unit"),
    (GOOD + "    rate: 0\n", 5, "destinations.0.rate is 0: allowed is more than 0"),
    (GOOD + "    max_in_flight: 0\n", 5, "destinations.0.max_in_flight is 0: "),
    (GOOD + "    retry:\n      longest: 1s\n", 5, "destinations.0.retry: first (10s) is longer than longest (1s)"),
    (GOOD + "    retry:\n      fist: 1s\n", 6, "destinations.0.retry.fist is '1s': no such field"),
]


@pytest.mark.parametrize(("text", "line", "message"), BAD, ids=[message[:60] for _, _, message in BAD])
def test_a_bad_file_is_refused_naming_file_line_and_field_and_no_secret(
    tmp_path: Path, text: str | bytes, line: int | None, message: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DestinationError) as caught:
        load_destinations(path, PUBLIC)
    lines = str(caught.value).splitlines()
    place = str(path) if line is None else f"{path}:{line}"
    assert any(line.startswith(f"{place}: ") and message in line for line in lines), lines
    assert "s3cr3t" not in str(caught.value)


def test_all_problems_and_the_valid_destinations_are_returned(tmp_path: Path) -> None:
    bad = FULL.replace("timeout: 5s", "timeout: 5").replace("rate: 50", "rate: -1")
    destinations, problems = read_destinations(write(tmp_path, bad), PUBLIC)
    assert [destination.name for destination in destinations] == ["mail"]
    assert [problem.line for problem in problems] == [8, 9]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match=r"none\.yaml: .*No such file"):
        load_destinations(tmp_path / "none.yaml", PUBLIC)


def test_the_policy_decides_which_urls_are_allowed(tmp_path: Path) -> None:
    local = write(tmp_path, GOOD.replace("https://crm.example.com", "http://127.0.0.1:8080"))
    assert load_destinations(local, EgressPolicy(allow_private=True))[0].url == "http://127.0.0.1:8080/hooks"
    listed = write(tmp_path, GOOD)
    assert load_destinations(listed, EgressPolicy(allowed_hosts=("*.example.com",)))[0].name == "crm"
    with pytest.raises(DestinationError, match=r"url: host is 'crm\.example\.com': not in the list of allowed hosts"):
        load_destinations(listed, EgressPolicy(allowed_hosts=("mail.example.com",)))


def test_a_destination_does_not_show_its_url(tmp_path: Path) -> None:
    crm, _ = load_destinations(write(tmp_path, FULL.replace("source=events", "token=s3cr3t")), PUBLIC)
    assert "crm" in repr(crm)
    assert "s3cr3t" not in repr(crm)
    assert "s3cr3t" not in str(crm)
