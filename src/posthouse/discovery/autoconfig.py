"""Mozilla's autoconfig: a document in which a domain names its servers (draft-ietf-mailmaint-autoconfig).

XML of strangers: no document type and so no entities, bounded depth and number of elements. What is not protected by
TLS is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote
from xml.parsers import expat

from posthouse.discovery.candidate import Candidate, How
from posthouse.mail.address import Address, AddressError, parse_domain
from posthouse.mail.source import Protection, Server

DOCUMENT_OCTETS = 64 * 1024
MAX_ELEMENTS = 2000
MAX_DEPTH = 20
MAX_TEXT = 1000

_SOCKETS = {"SSL": Protection.IMPLICIT, "STARTTLS": Protection.STARTTLS}
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_TOKEN = "oauth2"


class BadAutoconfig(Exception):
    """It is no document of that kind; the message is for people."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Each kind in the order of the document."""

    pop3: tuple[Candidate, ...] = ()
    smtp: tuple[Candidate, ...] = ()


def addresses_of(address: Address) -> tuple[str, str]:
    """Where a domain may have its document, in the order in which they are believed."""
    domain = address.domain
    named = quote(str(address), safe="@")
    return (
        f"https://autoconfig.{domain}/mail/config-v1.1.xml?emailaddress={named}",
        f"https://{domain}/.well-known/autoconfig/mail/config-v1.1.xml?emailaddress={named}",
    )


def parse_autoconfig(octets: bytes, address: Address) -> Servers:
    """The servers that can be used. Raises BadAutoconfig."""
    top = _tree(octets)
    if top.name != "clientConfig":
        raise BadAutoconfig(f"it is no clientConfig but {top.name[:40]!r}")
    found: dict[str, list[Candidate]] = {"pop3": [], "smtp": []}
    kinds = {"incomingServer": "pop3", "outgoingServer": "smtp"}
    for provider in top.named("emailProvider"):
        for element in provider.children:
            kind = kinds.get(element.name)
            if kind is None or element.kind.lower() != kind:
                continue
            candidate = _candidate(element, address)
            if candidate is not None:
                found[kind].append(candidate)
    return Servers(tuple(found["pop3"]), tuple(found["smtp"]))


@dataclass(slots=True)
class _Element:
    name: str
    kind: str = ""
    text: str = ""
    children: list[_Element] = field(default_factory=list)

    def named(self, name: str) -> Iterator[_Element]:
        return (child for child in self.children if child.name == name)

    def value(self, name: str) -> str:
        return next((child.text.strip() for child in self.named(name)), "")


def _tree(octets: bytes) -> _Element:
    if len(octets) > DOCUMENT_OCTETS:
        raise BadAutoconfig("it is too long")
    above: list[_Element] = []
    tops: list[_Element] = []
    count = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if count > MAX_ELEMENTS or len(above) >= MAX_DEPTH:
            raise BadAutoconfig("it has too many elements")
        element = _Element(name, attributes.get("type", ""))
        (above[-1].children if above else tops).append(element)
        above.append(element)

    def text(part: str) -> None:
        if above and len(above[-1].text) < MAX_TEXT:
            above[-1].text += part

    def refuse(*_: object) -> None:
        raise BadAutoconfig("it has a document type, and with it perhaps entities")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _name: above.pop() and None
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(octets, True)
    except (expat.ExpatError, ValueError, LookupError) as exc:
        raise BadAutoconfig(f"it is not XML: {exc}") from exc
    return tops[0]


def _candidate(element: _Element, address: Address) -> Candidate | None:
    protection = _SOCKETS.get(element.value("socketType").upper())
    try:
        host = parse_domain(_filled(element.value("hostname"), address))
        port = int(element.value("port"))
    except (AddressError, ValueError):
        return None
    login = _filled(element.value("username"), address)
    if protection is None or not 0 < port < 65536 or _CONTROLS.search(login) or "%" in login:
        return None
    ways = [child.text.strip().lower() for child in element.named("authentication")]
    return Candidate(
        server=Server(host, port, protection),
        how=How.AUTOCONFIG,
        vouched=True,
        login="" if login == str(address) else login,
        wants_token=bool(ways) and all(way == _TOKEN for way in ways),
    )


def _filled(text: str, address: Address) -> str:
    """With the placeholders replaced, once: what an address holds is never taken for another."""
    values = {"EMAILADDRESS": str(address), "EMAILLOCALPART": address.local_part, "EMAILDOMAIN": address.domain}
    return re.sub(r"%(EMAILADDRESS|EMAILLOCALPART|EMAILDOMAIN)%", lambda found: values[found[1]], text)
