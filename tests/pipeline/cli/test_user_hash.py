from __future__ import annotations

import pytest

from pipeline.cli.main import main
from transforms.domain.base.user_hash import UserHash

KEY = "0123456789abcdef0123456789abcdef"


def test_hashes_are_those_of_logs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HASH_KEY", KEY)
    assert main(["user-hash", "alice", "-bob", "--user_hash_key=env:HASH_KEY"]) == 2
    capsys.readouterr()
    assert main(["user-hash", "alice", "bob", "--user_hash_key=env:HASH_KEY"]) == 0
    hashed = UserHash(KEY.encode())
    assert capsys.readouterr().out.splitlines() == [hashed("alice"), hashed("bob")]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "--user_hash_key is missing: give the pipeline's; without a key nobody can find users in logs"),
        ([f"--user_hash_key={KEY}"], "--user_hash_key is no reference, allowed: env:NAME"),
        (["--user_hash_key=env:NOT_SET"], "--user_hash_key cannot be read: env:NOT_SET: no such environment variable"),
        (["\udcff", "--user_hash_key=env:HASH_KEY"], "USER is '\\udcff', allowed: UTF-8"),
    ],
)
def test_what_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    monkeypatch.setenv("HASH_KEY", KEY)
    assert main(["user-hash", "alice", *arguments]) == 2
    error = capsys.readouterr().err
    assert problem in error.replace("\\\\", "\\")
    assert KEY not in error
