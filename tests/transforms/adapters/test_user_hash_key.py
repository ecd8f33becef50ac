from __future__ import annotations

from pathlib import Path

import pytest

from transforms.adapters.user_hash_key import user_hash
from transforms.domain.base.secret_references import SecretError
from transforms.domain.base.user_hash import UserHash

KEY = "0123456789abcdef0123456789abcdef"


def test_workers_with_the_same_key_have_the_same_hashes(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert user_hash(f"file:{file}")("alice") == UserHash(KEY.encode())("alice")


def test_without_a_key_hashes_are_of_the_process_alone() -> None:
    assert user_hash(None)("alice") != user_hash(None)("alice")


def test_a_key_that_cannot_be_read_names_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HASH_KEY", "hush")
    with pytest.raises(SecretError, match=r"env:HASH_KEY: 4 characters, 18 bits at most") as raised:
        user_hash("env:HASH_KEY")
    assert "hush" not in str(raised.value)
