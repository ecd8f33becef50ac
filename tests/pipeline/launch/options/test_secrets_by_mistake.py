"""Who gives a secret where a reference belongs is told so, and the secret is not shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli.main import main

CANARY = "canary-Zx9-mistake"
OPTIONS = (
    "kafka_password", "kafka_key", "kafka_key_passphrase", "user_api_token", "user_hash_key", "dead_letters_key",
)  # fmt: skip
LAUNCH = ["run", "--runner=FlinkRunner", "--bootstrap_servers=x:1", "--rules=/nowhere"]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("road", ["flag", "variable", "file", "profile", "list in a file", "blank reference"])
def test_no_message_has_the_value(
    option: str, road: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = {
        "flag": [f"--{option}={CANARY}"],
        "blank reference": [f"--{option}=env: {CANARY}"],
        "profile": ["--profile=p"],
    }
    files = {
        "file": f"{option}: {CANARY}\n",
        "profile": f"profiles:\n  p:\n    {option}: {CANARY}\n",
        "list in a file": f"{option}: [{CANARY}]\n",
    }
    if road in files:
        (tmp_path / "event-trigger.yaml").write_text(files[road])
    if road == "variable":
        monkeypatch.setenv(f"EVENT_TRIGGER_{option.upper()}", CANARY)
    assert main([*LAUNCH, *flags.get(road, [])]) == 2
    shown = "".join(capsys.readouterr())
    assert option in shown.lower()
    assert CANARY not in shown
