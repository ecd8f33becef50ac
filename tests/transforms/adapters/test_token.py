from __future__ import annotations

from pathlib import Path

import pytest

from transforms.adapters.secrets import Token, TokenError


@pytest.mark.parametrize("text", ["", "s3cr3t", "file:relative", "aws-secret:"])
def test_what_is_no_reference_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(TokenError) as caught:
        Token(text)
    assert str(caught.value).startswith(
        "a token reference of another form, allowed: env:NAME, file:/ABSOLUTE/PATH or aws-"
    )


def test_a_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", " abc123==\n")
    assert Token("env:API_TOKEN").value == "abc123=="


def test_a_token_comes_from_a_file_and_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old\n")
    token = Token(f"file:{path}")
    assert token.value == "old"
    path.write_text("new\n")
    assert token.value == "old"
    assert token.reread() == token.value == "new"


def test_a_file_that_is_gone_or_broken_leaves_the_token_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old\n")
    now = Now()
    token = Token(f"file:{path}", now)
    path.write_text("two words")
    assert token.reread() == "old"
    path.unlink()
    now.s += 5
    assert token.reread() == "old"


def test_a_token_is_read_again_every_five_seconds_at_most(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    now = Now()
    token = Token(f"file:{path}", now)
    assert token.reread() == "old"
    path.write_text("new")
    now.s += 4.9
    assert token.reread() == "old"
    now.s += 0.1
    assert token.reread() == "new"


class Now:
    """A clock that is set."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"two\nlines", b"s3cr3t\x00", b"s3cr3t\xff", b"\x7f"])
def test_a_token_that_cannot_be_a_header_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(TokenError) as caught:
        Token(f"file:{path}")
    assert str(caught.value).startswith(f"token file:{path}: ")
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_token_that_is_missing_is_named_by_its_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH", raising=False)
    with pytest.raises(TokenError, match="token env:NO_SUCH: no such environment variable"):
        Token("env:NO_SUCH")
    with pytest.raises(TokenError, match=f"token file:{tmp_path}/none: No such file or directory"):
        Token(f"file:{tmp_path}/none")


def test_a_token_does_not_show_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "s3cr3t")
    token = Token("env:API_TOKEN")
    assert repr(token) == str(token) == "Token('env:API_TOKEN')"
