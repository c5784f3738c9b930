"""What people and machines see: bars, lines or JSON, and nothing that drives a terminal."""

import io
import json
import os
import signal

import pytest

from airgap.console import Console, safe, size_text, table
from airgap.errors import HostUnsuitable
from airgap.machine.signals import ending


class Closed(io.StringIO):
    """A terminal, or a pipe, whose other end went away."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def console(**words: object) -> Console:
    return Console(**{"out": io.StringIO(), "err": io.StringIO(), **words})


def test_events_go_to_stderr_and_results_to_stdout():
    made = console()
    made.say("x", "on the way")
    made.result("verify", {"a": 1}, "whole")
    assert made.err.getvalue() == "on the way\n"
    assert made.out.getvalue() == "whole\n"


def test_with_json_every_line_is_an_object_and_the_last_is_the_result():
    made = console(as_json=True)
    made.say("x", "ö \x1b[31m", size=3)
    made.result("verify", {"a": 1}, "whole")
    lines = [json.loads(line) for line in made.out.getvalue().splitlines()]
    assert lines == [{"event": "x", "text": "ö \x1b[31m", "size": 3}, {"event": "result", "verb": "verify", "a": 1}]
    assert made.out.getvalue().isascii()
    assert made.err.getvalue() == ""


def test_an_error_has_code_text_and_hint_for_both():
    error = HostUnsuitable("no room", hint="make some")
    people, machines = console(), console(as_json=True)
    people.error(error)
    machines.error(error)
    assert people.err.getvalue() == "airgap: no room\n  -> make some\n"
    assert json.loads(machines.out.getvalue()) == {"event": "error", "code": 20, "text": "no room", "hint": "make some"}


def test_quiet_says_results_and_errors_only():
    made = console(quiet=True)
    made.say("x", "on the way")
    made.error(HostUnsuitable("no"))
    assert made.err.getvalue() == "airgap: no\n"


def test_a_listener_that_went_away_does_not_end_the_work():
    console(err=Closed()).say("x", "anybody there?")
    console(out=Closed(), as_json=True).say("x", "anybody there?")
    with pytest.raises(OSError, match="Input/output"):
        console(out=Closed()).result("x", {}, "the result must arrive")


def test_nothing_printed_can_drive_a_terminal():
    assert safe("a\x1b]0;title\x07b\u202e\ud800") == r"a\x1b]0;title\x07b\u202e\ud800"
    assert safe("two\nlines\tand ü") == "two\nlines\tand ü"
    assert "\x1b" not in table(("a",), [("\x1b[31m",)])


def test_without_a_terminal_a_gauge_is_a_line_now_and_then():
    now = [0.0]
    made = console(clock=lambda: now[0])
    with made.gauge("alpine", 100) as gauge:
        gauge.advance(10)
        now[0] = 11.0
        gauge.advance(10)
        gauge.advance(10)
    (line,) = made.err.getvalue().splitlines()
    assert "alpine" in line
    assert "20 %" in line


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (123_456_789, "123 MB"), (4_700_000_000, "4.7 GB")]
)
def test_sizes_are_decimal_as_media_are_sold(size: int, text: str):
    assert size_text(size) == text


def test_columns_are_as_wide_as_they_need_and_numbers_stand_right():
    assert table(("name", "size"), [("a", "1"), ("longer", "12345")], right=frozenset({1})) == (
        "name     size\na           1\nlonger  12345"
    )


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_is_ctrl_c_once_and_the_next_one_waits_until_the_host_is_put_back(name: str):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with ending():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # ignored: we are putting back
    assert signal.getsignal(number) is before
