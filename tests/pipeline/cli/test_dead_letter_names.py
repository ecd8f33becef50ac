"""``event-trigger dead-letters list`` with a name that no letter has, without a broker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.cli import dead_letters
from pipeline.cli.main import main
from pipeline.job import stored_letters
from pipeline.job.stored_letters import StoredLetter
from transforms.domain.events.dead_letter import DeadLetter, LostAction

LOST = LostAction("0" * 32, 2, "webhook", "crm", "u2", "e", b"{}", 5, 3, 400)
LETTERS = (
    DeadLetter("undelivered", "HTTP 400", "", -1, -1, 9, b"u2", b"", "us_offers", LOST),
    DeadLetter("not_json", "why", "t", 2, 7, 9, b"u1", b""),
)


@pytest.fixture(autouse=True)
def _topic(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def existing_topic(*_: Any) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(
            records=lambda: [StoredLetter(0, number, 9, letter) for number, letter in enumerate(LETTERS)]
        )

    monkeypatch.setattr(dead_letters, "existing_topic", existing_topic)
    monkeypatch.setattr(stored_letters, "stored_letters", lambda records, unreadable: iter(records))


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        (["--rule=us_ofers"], "warning: no letter has --rule=us_ofers: did you mean --rule=us_offers?\n"),
        (["--destination=cmr"], "warning: no letter has --destination=cmr: did you mean --destination=crm?\n"),
        (["--rule=us_offers", "--destination=crm"], ""),
        (["--rule=something_else"], ""),
        (["--rule=us_ofers", "--limit=1"], ""),
    ],
)
def test_a_name_that_no_letter_has_is_asked_about(
    options: list[str], warned: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dead-letters", "list", "--bootstrap_servers=b:1", *options]) == 0
    shown = capsys.readouterr()
    assert shown.err == warned
    assert shown.out.splitlines()[-1].strip() == ("1  letters" if "--rule=us_offers" in options else "0  letters")
