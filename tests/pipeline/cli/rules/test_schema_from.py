from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pipeline.cli.main import main

EVENT = {"event_id": "e", "user_id": "u", "event_name": "buy", "timestamp": 1704067200000, "parameters": {"sku": "a"}}


def test_a_learned_schema_checks_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = tmp_path / "events.jsonl.gz"
    lines = [
        json.dumps(EVENT),
        "",
        json.dumps({"timestamp_ms": 5, "value": EVENT | {"tier": "gold"}}),
        "no JSON",
        "[1]",
    ]
    recording.write_bytes(gzip.compress("\n".join(lines).encode()))
    profiles = tmp_path / "profiles.jsonl"
    profiles.write_text('{"user_id": "u", "profile": {"country": "US"}}\n\n')
    assert main(["rules", "schema-from", str(recording), f"--profiles={profiles}"]) == 0
    shown = capsys.readouterr()
    assert shown.err == f"warning: {recording}: 2 lines with no event in it\nlearned from 2 events and 1 profile\n"
    document = json.loads(shown.out)
    assert document["properties"] == {
        "event": {
            "type": "object",
            "properties": {
                "parameters": {"type": "object", "properties": {"sku": {"type": "string"}}},
                "tier": {"type": "string"},
            },
        },
        "user": {"type": "object", "properties": {"country": {"type": "string"}}},
    }
    schema, rule = tmp_path / "schema.json", tmp_path / "rule.yaml"
    schema.write_text(shown.out)
    rule.write_text(
        "name: r\nversion: 1\nfilter: event.parameters.skuu == 'a' and user.country == 'US' and event.tier\n"
        "actions: [{type: debug}]\ntests: [{name: a, events: [{}], expect: nothing}]\n"
    )
    assert main(["rules", "check", str(rule), f"--schema={schema}"]) == 0
    assert capsys.readouterr().err == (
        f"warning: {rule}:3: filter reads event.parameters.skuu: {schema} has no such field; did you mean 'sku'?\n"
    )


@pytest.mark.parametrize(
    ("recording", "profiles", "message"),
    [
        ("", None, "events.jsonl: no event in it, allowed are JSON Lines of events"),
        (
            '{"timestamp_ms": "x", "value": {}}',
            None,
            "events.jsonl:1: timestamp_ms is 'x', allowed: ms since the epoch",
        ),
        (json.dumps(EVENT), "[]", "profiles.jsonl:1: allowed is an object with user_id and profile"),
        (json.dumps(EVENT), '{"profile": 5}', "profiles.jsonl:1: allowed is an object with user_id and profile"),
    ],
)
def test_a_recording_that_cannot_be_used_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recording: str, profiles: str | None, message: str
) -> None:
    (tmp_path / "events.jsonl").write_text(recording)
    more = [] if profiles is None else [f"--profiles={tmp_path}/profiles.jsonl"]
    (tmp_path / "profiles.jsonl").write_text(profiles or "")
    assert main(["rules", "schema-from", f"{tmp_path}/events.jsonl", *more]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert main(["rules", "schema-from", f"{tmp_path}/missing.jsonl"]) == 2
    assert "missing.jsonl: No such file" in capsys.readouterr().err
