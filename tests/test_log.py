"""The log: nobody forges a line, fills the disk, or finds a password in it."""

from __future__ import annotations

import errno
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.log import TRACE_CHARACTERS, VALUE_CHARACTERS, Log, make_log


def logs(as_json: bool) -> tuple[Log, io.StringIO]:
    out = io.StringIO()
    return make_log(out, json=as_json), out


HOSTILE = [
    "a\r\n2026-01-01 info login ok",
    "\x1b[2J\x1b]0;x\x07",
    "a\0b",
    "ä\u2028b\u202e",
    "\udc80",
    "",
    'a"b c',
    b"\r\n",
    None,
]


@pytest.mark.conformance("C299", "S28")
@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("value", HOSTILE)
def test_one_line_whatever_the_value(as_json: bool, value: object) -> None:
    log, out = logs(as_json)
    log.info("refused", reverse_path=value)
    text = out.getvalue()
    assert text.endswith("\n")
    assert text[:-1].isascii()
    assert text[:-1].isprintable()
    assert not as_json or json.loads(text)["event"] == "refused"


@pytest.mark.conformance("C299", "S28")
@given(st.text(), st.booleans())
def test_any_text_is_one_line(value: str, as_json: bool) -> None:
    log, out = logs(as_json)
    log.info("refused", hello=value)
    assert out.getvalue()[:-1].isprintable()


def test_values_cannot_pass_for_others() -> None:
    log, out = logs(False)
    log.info("refused", hello="x level=info peer=192.0.2.1", peer="198.51.100.1")
    assert out.getvalue().endswith("refused hello='x level=info peer=192.0.2.1' peer=198.51.100.1\n")


@pytest.mark.conformance("C299")
@pytest.mark.parametrize("as_json", [False, True])
def test_long_values_are_cut(as_json: bool) -> None:
    log, out = logs(as_json)
    log.info("refused", hello="x" * 1_000_000, paths=["y" * 1_000_000])
    assert len(out.getvalue()) < 2 * VALUE_CHARACTERS + 300
    assert "(1000000 characters)" in out.getvalue()


@pytest.mark.parametrize("as_json", [False, True])
def test_the_text_of_an_exception_forges_nothing(as_json: bool) -> None:
    log, out = logs(as_json)
    try:
        raise ValueError("a\n2026-01-01 info login ok\x1b[2J" + "x" * 1_000_000)
    except ValueError:
        log.exception("session failed")
    lines = out.getvalue().splitlines()
    assert len(out.getvalue()) < TRACE_CHARACTERS + 1000
    assert all(line.startswith("    ") and line.isprintable() for line in lines[1:])
    assert (len(lines) == 1) is as_json


@pytest.mark.conformance("C299", "S28")
@pytest.mark.parametrize("as_json", [False, True])
def test_what_is_named_a_secret_stays_one(as_json: bool) -> None:
    log, out = logs(as_json)
    log.bind(token="hunter2").info("login failed", password="hunter2", new_PASSWORD=b"hunter2", login="me")
    assert "hunter2" not in out.getvalue()
    assert "me" in out.getvalue()


@pytest.mark.conformance("S28")
def test_the_traceback_shows_no_values() -> None:
    log, out = logs(False)

    def check(password: str) -> None:
        raise ValueError("no")

    try:
        check("hunter2".upper())
    except ValueError:
        log.exception("session failed")
    assert "HUNTER2" not in out.getvalue()


class Full(io.StringIO):
    """A disk without space."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_log_that_cannot_be_written_harms_nobody() -> None:
    make_log(Full()).info("message accepted")
    closed = io.StringIO()
    log = make_log(closed, json=True)
    closed.close()
    log.info("message accepted")


def test_json_unless_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    plain, terminal = io.StringIO(), Terminal()
    make_log(plain, house="one").info("hello", count=5, ok=True)
    make_log(terminal).info("hello", count=5)
    assert {"count": 5, "ok": True, "house": "one", "level": "info"}.items() <= json.loads(plain.getvalue()).items()
    assert terminal.getvalue().endswith(" info hello count=5\n")


def test_debug_is_silent() -> None:
    log, out = logs(True)
    log.debug("noise")
    assert out.getvalue() == ""
