"""Messages, tables and progress, on a terminal and elsewhere."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pipeline import console
from pipeline.console import Progress, did_you_mean, out, table_lines


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard output and standard error from here on: a terminal. A fixture's would be pytest's again in the test."""
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", stream)
    return stream


@pytest.fixture
def as_json(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    monkeypatch.setattr(console, "_json_fields", None)
    before = [(handler, handler.formatter) for handler in logging.getLogger().handlers]
    yield
    for handler, formatter in before:
        handler.setFormatter(formatter)


ROWS = [["rule", "fired"], ["[red]x", "12,000"], ["a" * 150, "1"]]


def test_a_table_is_plain_and_whole_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert table_lines(ROWS) == [
        f"{'rule':<150}   fired",
        f"{'[red]x':<150}  12,000",
        f"{'a' * 150}       1",
    ]


def test_a_table_has_no_markup_and_no_control_characters_of_its_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch)
    heading, row = table_lines([["rule", "fired"], ["[red]\x1b[31mx[/red]", "1"]])
    assert heading.startswith("\x1b[1m")
    assert "[red]\\x1b[31mx[/red]" in row
    assert "\x1b[31m" not in row


def test_a_result_cannot_add_lines(capsys: pytest.CaptureFixture[str]) -> None:
    out("user\n[bold]ok\x1b]0;x\x07")
    assert capsys.readouterr().out == "user\\n[bold]ok\\x1b]0;x\\x07\n"


def test_on_a_terminal_a_bar_is_drawn_over_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, clock = terminal(monkeypatch), Clock()
    progress = Progress("redrive", clock)
    progress.show(0.1, "at once is nothing to tell")
    for share in (0.2, 0.5):
        clock.now_s += 0.1
        progress.show(share, f"{share} [red]sent")
    progress.end()
    progress.end()
    shown = stream.getvalue()
    assert "20%" in shown
    assert "50%" in shown
    assert "0.5 [red]sent" in shown
    assert "at once" not in shown


def test_elsewhere_it_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    progress = Progress("redrive", clock)
    for second in range(11):
        clock.now_s = 100.0 + second
        progress.show(second / 10, f"{second} sent")
    progress.end()
    assert capsys.readouterr().err == "redrive 50%  5 sent\nredrive 100%  10 sent\n"


def test_what_is_quickly_done_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)
    progress = Progress("redrive", Clock())
    progress.show(1.0, "done")
    progress.end()
    assert stream.getvalue() == ""


def test_errors_hide_secrets_and_keep_to_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.complain("https://me:hush@broker\x1b[2J: password=hush")
    assert capsys.readouterr().err == "error: https://[hidden]@broker\\x1b[2J: password=[hidden]\n"


CRASHES = """
import logging, sys, threading, warnings
sys.argv = ["event-trigger", "init", "--help"]
from pipeline.cli.main import main
main()
logging.getLogger("kafka").warning("login as ann, password=hush1\x1b[2J")
try:
    raise ValueError("https://me:hush2@broker")
except ValueError:
    logging.getLogger("kafka").exception("lost")
warnings.warn("token: hush3")
thread = threading.Thread(target=lambda: int("secret=hush4"))
thread.start()
thread.join()
raise RuntimeError("Authorization: Basic hush5")
"""


def test_what_other_packages_log_and_how_the_program_crashes_shows_no_secret() -> None:
    done = subprocess.run([sys.executable, "-c", CRASHES], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "hush" not in done.stderr
    assert "\x1b" not in done.stderr
    for shown in ("password=[hidden]", "lost", "https://[hidden]@broker", "token: [hidden]", "secret=[hidden]",
                  "RuntimeError: Authorization: [hidden]"):  # fmt: skip
        assert shown in done.stderr


def test_messages_are_json_if_asked(as_json: None, capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    try:
        console.log_json()
        console.log_json(job="j")
        console.complain("password=hush")
        (line,) = capsys.readouterr().err.splitlines()
    finally:
        logging.getLogger().removeHandler(handler)
    document = json.loads(line)
    assert (document["event"], document["level"], document["job"]) == ("password=[hidden]", "error", "j")


@pytest.mark.parametrize(
    ("name", "question"), [("ruls", "did you mean --rules?"), ("rules", "did you mean --rules?"), ("zzz", "")]
)
def test_a_close_name_is_asked_for(name: str, question: str) -> None:
    assert did_you_mean(name, ["rules", "runner"], "--") == question
