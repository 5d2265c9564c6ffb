"""Autoconfig documents: what is read of them, and what strangers put into XML."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.discovery.autoconfig import BadAutoconfig, addresses_of, parse_autoconfig
from posthouse.mail.address import parse_address
from posthouse.mail.source import Protection, Server

ADA = parse_address("ada@far.test")


def config(inside: str, before: str = "") -> bytes:
    return f"{before}<clientConfig><emailProvider>{inside}</emailProvider></clientConfig>".encode()


def incoming(
    host: str = "pop.far.test", port: str = "995", socket: str = "SSL", user: str = "x", kind: str = "pop3"
) -> str:
    return (
        f'<incomingServer type="{kind}"><hostname>{host}</hostname><port>{port}</port>'
        f"<socketType>{socket}</socketType><username>{user}</username></incomingServer>"
    )


@pytest.mark.conformance("C219")
def test_placeholders_are_replaced_once() -> None:
    address = parse_address('"%EMAILDOMAIN%"@far.test')
    (found,) = parse_autoconfig(config(incoming(host="pop.%EMAILDOMAIN%", user="%EMAILLOCALPART%")), ADA).pop3
    assert found.server == Server("pop.far.test", 995, Protection.IMPLICIT)
    assert found.login == "ada"
    # What an address holds is not taken for a placeholder, and a name with one left is none.
    assert parse_autoconfig(config(incoming(user="%EMAILLOCALPART%")), address).pop3 == ()


@pytest.mark.conformance("C219")
def test_an_address_cannot_change_the_question() -> None:
    first, second = addresses_of(parse_address("a&b=c?d/#e+f@far.test"))
    assert first.endswith("/mail/config-v1.1.xml?emailaddress=a%26b%3Dc%3Fd%2F%23e%2Bf@far.test")
    assert second.startswith("https://far.test/.well-known/autoconfig/mail/config-v1.1.xml?")


@pytest.mark.parametrize(
    "element",
    [
        incoming(socket="plain"),
        incoming(socket=""),
        incoming(host="a b.test"),
        incoming(host="http://pop.far.test"),
        incoming(host=""),
        incoming(port="0"),
        incoming(port="65536"),
        incoming(port="x"),
        incoming(user="a&#10;USER b"),
        incoming(user="%REALNAME%"),
        incoming(kind="imap"),
        "<incomingServer/>",
    ],
)
def test_what_cannot_be_used_is_left_out(element: str) -> None:
    servers = parse_autoconfig(config(element + incoming(host="good.far.test")), ADA)
    assert [each.server.host for each in servers.pop3] == ["good.far.test"]


def test_an_oauth_only_server_is_told() -> None:
    wants = incoming().replace("<username>", "<authentication>OAuth2</authentication><username>")
    both = wants.replace("<username>", "<authentication>password-cleartext</authentication><username>")
    assert [each.wants_token for each in parse_autoconfig(config(wants + both), ADA).pop3] == [True, False]


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.conformance("C219")
@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (config(incoming(host="&b;"), BOMB), "document type"),
        (config(incoming(host="&x;"), '<!DOCTYPE x [<!ENTITY x SYSTEM "file:///etc/passwd">]>'), "document type"),
        (config(incoming(), '<!DOCTYPE x SYSTEM "http://evil.test/x.dtd">'), "document type"),
        (b"<a>" * 30, "too many elements"),
        (b"<a>" + b"<b/>" * 3000 + b"</a>", "too many elements"),
        (b"<a>" + b" " * 70_000 + b"</a>", "too long"),
        (b"", "not XML"),
        (b"<clientConfig>", "not XML"),
        (b"<html/>", "no clientConfig"),
        (b'<?xml version="1.0" encoding="what"?><clientConfig/>', "not XML"),
        (config("&nbsp;"), "not XML"),
    ],
)
def test_strange_documents_are_refused(octets: bytes, words: str) -> None:
    with pytest.raises(BadAutoconfig, match=words):
        parse_autoconfig(octets, ADA)


@given(st.binary(max_size=300))
def test_octets_of_strangers_raise_nothing_else(octets: bytes) -> None:
    try:
        parse_autoconfig(octets, ADA)
    except BadAutoconfig:
        pass
