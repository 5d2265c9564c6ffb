"""What the SMTP doors offer, used over sockets: chunks, internationalised mail, notification parameters, LOGIN."""

from __future__ import annotations

import base64
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from posthouse.doors import SELF_SIGNED
from posthouse.mail.acceptance import Notify, Ret
from posthouse.net.tls import make_self_signed
from tests.house.test_forwarding import maildrop, until_served
from tests.house.wire import Wire, stored
from tests.running_house import PASSWORD, RunningHouse

ADA, BOB = "ada@here.test", "bob@here.test"
CONTENTS = {
    "lines of dots": b"Subject: x\r\n\r\n.\r\n..\r\n\r\n.\r\n...\r\n",
    "dot first": b".\r\n.\r\n\r\n.x\r\n",
    "an end of DATA": b"Subject: x\r\n\r\nx\r\n.\r\nMAIL FROM:<evil@b.test>\r\nRCPT TO:<bob@here.test>\r\nDATA\r\n",
    "all octets": b"Subject: x\r\n\r\n" + bytes(octet for octet in range(256) if octet not in b"\r\n") + b"\r\n",
    "a long line": b"Subject: x\r\n\r\n" + b"." * 70_000 + b"\r\n",
    "large": b"Subject: x\r\n\r\n" + (b"." + b"y" * 76 + b"\r\n") * 4_000,
    "empty": b"",
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    folder = tmp_path_factory.mktemp("house")
    make_self_signed("mx.here.test", folder / SELF_SIGNED[0], folder / SELF_SIGNED[1], time.time())
    with RunningHouse(folder, reception={"errors": 1000, "message_size_octets": 1_000_000}) as house:
        yield house


@pytest.fixture
def there(tmp_path: Path) -> Iterator[RunningHouse]:
    folder = tmp_path / "there"
    folder.mkdir()
    people = ("bob@there.test", "δοκιμή@there.test")
    with RunningHouse(folder, people, hostname="mx.there.test", postmaster="bob@there.test") as house:
        yield house


def chunked(content: bytes, size: int) -> bytes:
    """Content by BDAT, the last chunk an empty one."""
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(b"BDAT %d\r\n%b" % (len(part), part) for part in parts) + b"BDAT 0 LAST\r\n"


def count(house: RunningHouse) -> int:
    """How many messages Bob has."""
    with Wire(house.ports["pop3"]) as reader:
        assert reader.login(BOB).startswith(b"+OK")
        found = len(reader.uidls())
        assert reader.pop3("QUIT").startswith(b"+OK")
        return found


def submit(house: RunningHouse, *lines: str) -> Wire:
    """A session that has logged in by AUTH LOGIN and said these lines, each taken."""
    wire = Wire(house.ports["submission"]).greet()
    assert wire.say("AUTH LOGIN") == b"334 VXNlcm5hbWU6"
    assert wire.say(base64.b64encode(ADA.encode())) == b"334 UGFzc3dvcmQ6"
    assert wire.say(base64.b64encode(PASSWORD.encode())).startswith(b"235 2.7.0 ")
    for line in lines:
        assert (answer := wire.say(line)).startswith(b"250 "), answer
    return wire


@pytest.mark.conformance("C140", "S3", "S7")
def test_a_login_before_starttls_is_none_after_it(house: RunningHouse) -> None:
    with submit(house, f"MAIL FROM:<{ADA}>", f"RCPT TO:<{BOB}>") as wire:
        assert wire.say("STARTTLS").startswith(b"220 ")
        wire.start_tls(ssl.create_default_context(cafile=house.config.data_dir / SELF_SIGNED[0]))
        assert wire.say("MAIL FROM:<>").startswith(b"530 5.7.0 ")
        assert wire.say("EHLO client.test").startswith(b"250 ")
        assert wire.say("DATA").startswith(b"530 5.7.0 ")
        wire.send(b"AUTH PLAIN " + base64.b64encode(f"\0{BOB}\0{PASSWORD}".encode()) + b"\r\n")
        assert wire.reply().startswith(b"235 ")
        assert wire.say(f"MAIL FROM:<{ADA}>").startswith(b"550 5.7.1 ")
        assert wire.say(f"MAIL FROM:<{BOB}>").startswith(b"250 ")


@pytest.mark.conformance("C163", "C168", "C277")
@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("size", [1, 3, 1_000, 1_000_000])
def test_chunks_arrive_octet_for_octet(house: RunningHouse, name: str, size: int) -> None:
    content = CONTENTS[name] if size > 3 else CONTENTS[name][:300].rstrip(b"\r\n") + b"\r\n"
    dialogue = chunked(content, size)
    with Wire(house.ports["smtp"]).greet().envelope(BOB) as wire:
        wire.send(dialogue)
        replies = [wire.reply() for _ in range(dialogue.count(b"BDAT "))]
        assert {reply[:10] for reply in replies[:-1]} <= {b"250 2.0.0 "}
        queue_id = stored(replies[-1])
        assert wire.say("NOOP").startswith(b"250 ")
    with Wire(house.ports["pop3"]) as reader:
        assert reader.login(BOB).startswith(b"+OK")
        assert reader.uidls()[-1] == queue_id
        octets = reader.retrieve(len(reader.uidls()))
        assert reader.pop3("QUIT").startswith(b"+OK")
    assert octets.endswith(b" +0000\r\n" + content)


@pytest.mark.conformance("C169", "C170", "S34")
@pytest.mark.parametrize("ending", ["end", "drop", "quit", "reset"])
@pytest.mark.parametrize("encrypted", [False, True])
def test_a_session_lost_in_a_chunk_leaves_nothing(house: RunningHouse, ending: str, encrypted: bool) -> None:
    before = count(house)
    with Wire(house.ports["smtp"]).greet() as wire:
        if encrypted:
            assert wire.say("STARTTLS").startswith(b"220 ")
            context = ssl.create_default_context(cafile=house.config.data_dir / SELF_SIGNED[0])
            wire.start_tls(context)
            assert wire.say("EHLO client.test").startswith(b"250 ")
        wire.envelope(BOB).send(b"BDAT 15\r\nSubject: half\r\nBDAT 100000 LAST\r\nand not the other")
        if ending == "end":
            wire.end()
        elif ending == "drop":
            wire.drop()
        elif ending == "quit":
            wire.send(b"QUIT\r\n")
            wire.end()
        else:
            wire.socket.close()
    with Wire(house.ports["smtp"]).greet() as other:
        assert other.say("NOOP").startswith(b"250 ")
        other.deliver(b"Subject: whole\r\n", BOB)
    assert count(house) == before + 1


@pytest.mark.conformance("C168")
def test_what_came_in_chunks_is_relayed_octet_for_octet(tmp_path: Path, there: RunningHouse) -> None:
    content = CONTENTS["an end of DATA"] + CONTENTS["lines of dots"]
    folder = tmp_path / "here"
    folder.mkdir()
    with RunningHouse(folder, forwarding={"routes": {"*": f"127.0.0.1:{there.ports['smtp']}"}}) as here:
        with submit(here, f"MAIL FROM:<{ADA}>", "RCPT TO:<bob@there.test>") as wire:
            wire.send(b"BDAT %d LAST\r\n%b" % (len(content), content))
            stored(wire.reply())
        until_served(here)
    ((_, size, octets),) = maildrop(there, "bob@there.test")
    assert octets.endswith(content)
    assert size == len(octets)


@pytest.mark.conformance("C192", "C194")
def test_internationalised_mail_goes_from_house_to_house(tmp_path: Path, there: RunningHouse) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    with RunningHouse(folder, forwarding={"routes": {"*": f"127.0.0.1:{there.ports['smtp']}"}}) as here:
        with submit(here, f"MAIL FROM:<{ADA}> SMTPUTF8 BODY=8BITMIME", "RCPT TO:<δοκιμή@there.test>") as wire:
            stored(wire.content("Subject: Grüße\r\n\r\nδοκιμή\r\n".encode()))
        until_served(here)
    ((_, _, octets),) = maildrop(there, "δοκιμή@there.test", utf8=True)
    assert octets.endswith("Subject: Grüße\r\n\r\nδοκιμή\r\n".encode())


@pytest.mark.conformance("C177", "C178", "C179")
def test_what_the_sender_wants_to_hear_is_kept_for_forwarding(tmp_path: Path) -> None:
    with RunningHouse(tmp_path) as here:
        mail = f"MAIL FROM:<{ADA}> RET=HDRS ENVID=QQ+2B314"
        recipients = (
            "RCPT TO:<a@far.test> NOTIFY=success,DELAY ORCPT=rfc822;A+2Bb@Far.test",
            "RCPT TO:<b@far.test> NOTIFY=NEVER",
            "RCPT TO:<c@far.test>",
        )
        with submit(here, mail, *recipients) as wire:
            stored(wire.content(b"Subject: hi\r\n\r\nhello\r\n"))
        rows = sorted(here.ask(lambda storage: storage.spool.list()), key=lambda row: str(row.forward_path))
    assert [(row.message.ret, row.message.envelope_id) for row in rows] == [(Ret.HDRS, "QQ+314")] * 3
    assert [row.notify for row in rows] == [
        frozenset({Notify.SUCCESS, Notify.DELAY}),
        frozenset({Notify.NEVER}),
        None,
    ]
    assert [row.original_recipient for row in rows] == ["rfc822;A+b@Far.test", None, None]


@pytest.mark.conformance("C165", "C290")
def test_a_message_too_large_is_refused_at_its_end_and_the_session_goes_on(house: RunningHouse) -> None:
    limit = house.config.reception.message_size_octets
    with Wire(house.ports["smtp"]).greet().envelope(BOB) as wire:
        wire.send(b"BDAT %d LAST\r\n" % (limit + 1) + (b"QUIT\r\n" * limit)[: limit + 1])
        assert wire.reply().startswith(b"552 5.3.4 ")
        assert wire.say("RCPT TO:<bob@here.test>").startswith(b"503 ")
        wire.deliver(b"Subject: small\r\n", BOB)


@pytest.mark.conformance("C1", "C13", "C17", "C21")
@pytest.mark.parametrize(
    "name", ["foreign.test", "mx.here.test", "localhost", "[203.0.113.9]", "[IPv6:2001:db8::1]", "x_y"]
)
def test_from_greeting_to_end(house: RunningHouse, name: str) -> None:
    """One line greets, without a version; the name a peer gives decides nothing; QUIT is answered, then the end."""
    with Wire(house.ports["smtp"]) as wire:
        assert wire.line() == b"220 mx.here.test Posthouse"
        assert wire.say("NOOP") == b"250 2.0.0 OK", "nothing else was said with the greeting"
        assert wire.say(f"EHLO {name}").startswith(b"250 ")
        wire.deliver(b"Subject: hi\r\n", BOB)
        assert wire.say("QUIT") == b"221 2.0.0 mx.here.test closing connection"
        assert wire.rest() == b""


@pytest.mark.conformance("C20")
def test_the_house_waits_for_a_command_as_long_as_it_must(house: RunningHouse) -> None:
    assert house.config.reception.command_timeout >= 300


@pytest.mark.conformance("C8", "C175", "C192")
def test_what_the_doors_offer(house: RunningHouse) -> None:
    offered = {}
    for door in ("smtp", "submission"):
        with Wire(house.ports[door]) as wire:
            assert wire.line().startswith(b"220 ")
            wire.send(b"EHLO client.test\r\n")
            lines = [wire.line()]
            while lines[-1][3:4] == b"-":
                lines.append(wire.line())
            offered[door] = {line[4:].decode() for line in lines[1:]}
    recipients = house.config.reception.recipients
    limits = {word for word in offered["smtp"] if word.startswith("LIMITS ")}
    assert f"RCPTMAX={recipients}" in limits.pop().split(" ")
    assert {"PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "ENHANCEDSTATUSCODES"} < offered["smtp"]
    assert "SIZE 1000000" in offered["smtp"]
    mechanisms = {word for word in offered["submission"] if word.startswith("AUTH ")}
    assert {"PLAIN", "LOGIN"} <= set(mechanisms.pop().split(" "))
    assert not any(word.startswith("AUTH") for word in offered["smtp"])


@pytest.mark.conformance("C40", "C175")
def test_one_recipient_more_than_the_limit_that_is_told(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, reception={"recipients": 100}) as house, Wire(house.ports["smtp"]) as wire:
        wire.send(b"EHLO client.test\r\n")
        lines = [wire.line(), wire.line()]
        while lines[-1][3:4] == b"-":
            lines.append(wire.line())
        assert any(b"RCPTMAX=100" in line for line in lines)
        wire.envelope(*[BOB] * 100)
        assert wire.say(f"RCPT TO:<{ADA}>").startswith(b"452 4.5.3 ")
        stored(wire.content(b"Subject: hi\r\n"))


@pytest.mark.conformance("C286", "C310", "S12")
@pytest.mark.parametrize(
    "begun", [b"", b"MAIL FROM:<", b"BDAT ", b"EHLO c.test\r\nAUTH PLAIN ", b"EHLO c.test\r\nAUTH LOGIN\r\n"], ids=repr
)
def test_a_line_without_end_ends_the_session(house: RunningHouse, begun: bytes) -> None:
    with Wire(house.ports["submission"]) as wire:
        assert wire.line().startswith(b"220 ")
        wire.send_in_pieces(begun + b"A" * 2_000_000, 65_536)
        assert wire.rest().count(b"\r\n500 ") <= 1
    with Wire(house.ports["smtp"]).greet() as other:
        other.send(b"A" * 65_536 + b"\r\n")
        assert other.reply().startswith(b"500 ")
        assert other.say("NOOP").startswith(b"250 ")


ENDINGS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r\n.\r\r\n",
    b"\r\n\0.\r\n",
    b"\x85.\x85",
]


@pytest.mark.conformance("C46", "C277", "S1")
@pytest.mark.parametrize("ending", ENDINGS, ids=repr)
@pytest.mark.parametrize("verb", ["DATA", "BDAT"])
def test_nothing_is_smuggled_in_tls_records(house: RunningHouse, ending: bytes, verb: str) -> None:
    """Each octet in a record of its own: one reply at the true end, no second message."""
    before = count(house)
    content = b"x" + ending + b"MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@here.test>\r\nDATA\r\nevil\r\n"
    bare = ending not in (b"\r\n\0.\r\n", b"\x85.\x85")
    with Wire(house.ports["smtp"]).greet() as wire:
        assert wire.say("STARTTLS").startswith(b"220 ")
        wire.start_tls(ssl.create_default_context(cafile=house.config.data_dir / SELF_SIGNED[0]))
        assert wire.say("EHLO client.test").startswith(b"250 ")
        wire.envelope(BOB)
        if verb == "DATA":
            assert wire.say("DATA").startswith(b"354 ")
            wire.send_in_pieces(content + b".\r\n", 1)
        else:
            wire.send_in_pieces(b"BDAT %d LAST\r\n" % len(content) + content, 1)
        assert wire.reply()[:4] == (b"550 " if bare else b"250 ")
        assert wire.say("NOOP") == b"250 2.0.0 OK"
        assert wire.say("DATA").startswith(b"503 ")
    assert count(house) == before + (not bare)
