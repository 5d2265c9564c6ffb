"""`posthouse journey --refused`, and what `check` says of mail that nobody reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIG, Command
from tests.house.wire import Wire
from tests.running_house import PASSWORD, RunningHouse

LETTER = b"Subject: hi\r\n\r\nhello\r\n"


def test_refused_mail_is_found_and_told(furnished: Command) -> None:
    assert furnished.run("journey", "--refused").out == "No mail was refused.\n"
    with RunningHouse(furnished.folder) as house:
        with Wire(house.ports["smtp"]).greet() as wire:
            assert wire.say("MAIL FROM:<X@far.test>").startswith(b"250 ")
            assert wire.say("RCPT TO:<Nobody@here.test>").startswith(b"550 ")
            assert wire.say("RSET").startswith(b"250 ")
            wire.deliver(LETTER, "ada@here.test")
    told = furnished.run("journey", "--refused").out
    assert told.startswith("Refused mail ")
    assert told.count("Refused mail") == 1
    assert "Refused at RCPT: mail from X@far.test for Nobody@here.test" in told
    assert "We said 550 5.1.1 There is no such mailbox here" in told
    assert "Peer 127.0.0.1, said it is client.test" in told
    assert "posthouse account add ADDRESS" in told
    assert "(times in UTC)" in told.splitlines()[1]
    for way in (("--to", "nobody@here.test"), ("--from", "x@far.test"), ("--refused", "--from", "x@FAR.test")):
        assert furnished.run("journey", *way).out == told
    assert furnished.run("journey", "--refused", "--reply", "no such mailbox").out == told
    assert furnished.run("journey", "--refused", "--to", "ada@here.test").out.startswith("No mail to ada@here.test")
    (event,) = json.loads(furnished.run("journey", "--refused", "--json").out)
    assert (event["event"], event["command"], event["forward_paths"]) == ("refused", "RCPT", ["Nobody@here.test"])


@pytest.mark.conformance("C26")
@pytest.mark.parametrize(
    ("postmaster", "mend"),
    [
        ("", "set postmaster in the configuration"),
        ('postmaster = "gone@here.test"', "run: posthouse account add gone@here.test"),
    ],
)
def test_check_says_that_nobody_reads_mail_to_postmaster(furnished: Command, postmaster: str, mend: str) -> None:
    Path("posthouse.toml").write_text(CONFIG.replace('postmaster = "ada@here.test"', postmaster))
    before = furnished.run("check")
    assert before.status == 1
    assert "will be kept in a system maildrop" in before.out
    assert mend in before.out
    with RunningHouse(furnished.folder, postmaster=None) as house:
        with Wire(house.ports["smtp"]).greet() as wire:
            wire.deliver(LETTER, "postmaster@here.test", sender="")
            after = furnished.run("check").out
            assert "1 message is kept in the system maildrop" in after
            assert mend in after
            assert "posthouse account password postmaster@mx.here.test" in after
        ran = furnished.run("account", "password", "postmaster@mx.here.test", "--password-stdin", stdin=f"{PASSWORD}\n")
        assert ran.status == 0
        with Wire(house.ports["pop3"]) as reader:
            assert reader.login("postmaster@mx.here.test").startswith(b"+OK")
            assert reader.retrieve(1).endswith(LETTER)
        checked = json.loads(furnished.run("check", "--json").out)
    (finding,) = (row for row in checked if row["check"] == "postmaster")
    assert finding["state"] == "ok"
    assert "postmaster@mx.here.test" in finding["text"]
