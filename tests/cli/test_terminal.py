from __future__ import annotations

import io
import sys

import pytest

from structopt_onnx.cli.terminal import Terminal
from structopt_onnx.report.layout import line


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def tty(monkeypatch) -> Tty:
    for variable in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Tty()


def test_progress_is_shown_on_a_terminal(tty, monkeypatch):
    monkeypatch.setattr(sys, "stderr", tty)
    with Terminal(json=False, quiet=False).progress("optimizing") as say:
        say("load")
        say("probe 3/40: w[red]\x1b[2J")
    shown = tty.getvalue()
    assert "optimizing: probe 3/40: w[red]?[2J" in shown
    assert "\x1b[2J" not in shown


@pytest.mark.parametrize(("stream", "quiet"), [(io.StringIO, False), (Tty, True)])
def test_no_progress_elsewhere(monkeypatch, stream, quiet):
    errors = stream()
    monkeypatch.setattr(sys, "stderr", errors)
    with Terminal(json=False, quiet=quiet).progress("optimizing") as say:
        say("probe 3/40")
    assert errors.getvalue() == ""


def test_progress_ends_with_the_work_even_when_it_fails(tty, monkeypatch):
    monkeypatch.setattr(sys, "stderr", tty)
    with pytest.raises(KeyError), Terminal(json=False, quiet=False).progress("x"):
        raise KeyError
    assert tty.getvalue().count("\x1b[?25h") == 1  # the cursor is back


def test_text_has_colours_on_a_terminal_only(tty, monkeypatch, capsys):
    Terminal(json=False, quiet=False).tell({}, lambda: line("[b]done[/b] :smile:", "bold"))
    assert capsys.readouterr().out == "[b]done[/b] :smile:\n"
    monkeypatch.setattr(sys, "stdout", tty)
    Terminal(json=False, quiet=False).tell({}, lambda: line("[b]done[/b] :smile:", "bold"))
    assert tty.getvalue() == "\x1b[1m[b]done[/b] :smile:\x1b[0m\n"


@pytest.mark.parametrize(("json", "quiet"), [(True, False), (True, True), (False, True)])
def test_text_is_not_even_made_when_nobody_wants_it(capsys, json, quiet):
    def never():
        raise AssertionError

    Terminal(json, quiet).tell({"a": 1}, never)
    assert bool(capsys.readouterr().out) == json
