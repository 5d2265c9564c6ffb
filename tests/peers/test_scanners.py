"""nmap and testssl.sh look at a live house as a stranger would: open relays, what is offered, protocols, ciphers."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.peers import maildrop
from tests.peers.authority import certify
from tests.peers.programs import Program
from tests.running_house import RunningHouse

pytestmark = pytest.mark.peers

SERVICES = {"smtp": "smtp", "submission": "submission", "submissions": "smtps", "pop3": "pop3", "pop3s": "pop3s"}
"""Door → what nmap calls it, by which its scripts know what to say there."""
TESTSSL_S = 240.0
AT_MOST_LOW = {"OK", "INFO", "LOW", "DEBUG", "WARN"}
"""WARN is of testssl.sh itself: what it could not try. What it must have tried is asked for by name."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    """With every door, the certificate of an authority, and no passwords in clear."""
    folder = tmp_path_factory.mktemp("house")
    certify(folder, maildrop.TLS_NAME)
    with RunningHouse(
        folder,
        tls={"certificate": "chain.pem", "key": "chain.key"},
        auth={"allow_cleartext": False},
        listen={door: ["127.0.0.1:0"] for door in SERVICES},
    ) as running:
        yield running


def scan(nmap: Program, house: RunningHouse, folder: Path, script: str) -> dict[str, ElementTree.Element]:
    """Door → what this script of nmap found there."""
    ports = {house.ports[door]: door for door in house.ports}
    known = folder / "services"
    known.write_text("".join(f"{SERVICES[door]} {port}/tcp 0.5\n" for port, door in ports.items()))
    # -v: the script lists what it tried, and got through.
    options = ["-vv", "-Pn", "-n", "-sT", "--unprivileged", "--servicedb", known]
    arguments = ["--script-args", "smtp.domain=client.test,smtp-open-relay.domain=far.test"]
    run = nmap(*options, "--script", script, *arguments, "-oX", "-", "127.0.0.1")
    assert run.succeeded, str(run)
    found = {}
    for port in ElementTree.fromstring(run.stdout).iter("port"):
        if (output := port.find("script")) is not None:
            assert output.get("id") == script
            found[ports[int(port.attrib["portid"])]] = output
    return found


class TestNmap:
    @pytest.mark.conformance("C42", "C282")
    def test_relays_for_nobody_in_sixteen_spellings(self, nmap: Program, house: RunningHouse, tmp_path: Path) -> None:
        found = scan(nmap, house, tmp_path, "smtp-open-relay")
        assert found["smtp"].get("output") == "Server doesn't seem to be an open relay, all tests failed"
        for door in ("submission", "submissions"):
            assert found[door].get("output") == "Server isn't an open relay, authentication needed"
        assert maildrop.queue_length(house) == 0

    def test_it_would_have_seen_an_open_relay(self, nmap: Program, tmp_path: Path) -> None:
        with RunningHouse(tmp_path, reception={"trusted_networks": ["127.0.0.0/8"]}) as open_house:
            found = scan(nmap, open_house, tmp_path, "smtp-open-relay")
        assert re.match(r"Server is an open relay \(\d+/16 tests\)", found["smtp"].get("output", ""))

    @pytest.mark.conformance("C7", "C113", "C119")
    def test_what_smtp_offers(self, nmap: Program, house: RunningHouse, tmp_path: Path) -> None:
        found = scan(nmap, house, tmp_path, "smtp-commands")
        offered = {door: set(re.split(r", |\n ", found[door].get("output", ""))) for door in found}
        assert offered.keys() == {"smtp", "submission", "submissions"}
        for door, keywords in offered.items():
            assert {"PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "CHUNKING", "DSN"} <= keywords
            assert f"SIZE {house.config.reception.message_size_octets}" in keywords
            assert ("STARTTLS" in keywords) is (door != "submissions")
            # A login only where it is of use, and never in clear.
            assert any(keyword.startswith("AUTH ") for keyword in keywords) is (door == "submissions")

    @pytest.mark.conformance("C256", "C258", "C265")
    def test_what_pop3_offers(self, nmap: Program, house: RunningHouse, tmp_path: Path) -> None:
        found = scan(nmap, house, tmp_path, "pop3-capabilities")
        offered = {door: set(re.findall(r"[^ (]+(?:\([^)]*\))?", found[door].get("output", ""))) for door in found}
        assert offered.keys() == {"pop3", "pop3s"}
        for door, capabilities in offered.items():
            assert {"TOP", "UIDL", "PIPELINING", "RESP-CODES", "AUTH-RESP-CODE", "EXPIRE(NEVER)"} <= capabilities
            assert ("STLS" in capabilities) is (door == "pop3")
            # A login only where it is not in clear.
            assert ("USER" in capabilities) is (door == "pop3s")
            assert any(re.match(r"SASL\(.*\bPLAIN\b", each) for each in capabilities) is (door == "pop3s")

    @pytest.mark.conformance("C137", "C297")
    def test_ciphers(self, nmap: Program, house: RunningHouse, tmp_path: Path) -> None:
        found = scan(nmap, house, tmp_path, "ssl-enum-ciphers")
        assert {"smtp", "submissions", "pop3", "pop3s"} <= found.keys()
        for output in found.values():
            tables = {table.get("key"): table for table in output.findall("table")}
            assert tables.keys() == {"TLSv1.2", "TLSv1.3"}
            strengths = {each.text for each in output.iter("elem") if each.get("key") == "strength"}
            assert strengths == {"A"}
            compressors = {
                each.text for table in output.iter("table") if table.get("key") == "compressors" for each in table
            }
            assert compressors <= {"NULL"}


class TestTestssl:
    """`--add-ca` makes our authority one that it trusts. -U tries the known attacks, which takes longest: once."""

    @pytest.mark.long
    @pytest.mark.conformance("C137", "C265", "C297")
    @pytest.mark.parametrize(
        ("door", "options"),
        [
            ("submissions", ["-p", "-s", "-f", "-P", "-S", "-U"]),
            ("smtp", ["-p", "-s", "-f", "-P", "-S", "-t", "smtp"]),
            ("pop3s", ["-p", "-s", "-f", "-P"]),
            ("pop3", ["-p", "-s", "-f", "-P", "-t", "pop3"]),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_finds_nothing_above_low(
        self, testssl: Program, house: RunningHouse, tmp_path: Path, door: str, options: list[str]
    ) -> None:
        findings = run_testssl(testssl, house, tmp_path, door, options)
        assert [finding for finding in findings.values() if finding["severity"] not in AT_MOST_LOW] == []
        # It did look: what it must have found.
        assert {findings[name]["finding"] for name in ("SSLv2", "SSLv3", "TLS1", "TLS1_1")} == {"not offered"}
        assert findings["TLS1_2"]["severity"] == findings["TLS1_3"]["severity"] == "OK"
        assert findings["PFS"]["severity"] == findings["cipherlist_STRONG"]["severity"] == "OK"
        if "-S" in options:
            assert findings["cert_chain_of_trust"]["finding"] == "passed."
            assert findings["cert_trust"]["severity"] == "OK"
        if "-U" in options:
            assert findings["secure_renego"]["severity"] == findings["ROBOT"]["severity"] == "OK"


def run_testssl(
    testssl: Program, house: RunningHouse, folder: Path, door: str, options: list[str]
) -> dict[str, dict[str, str]]:
    """Findings by name."""
    quiet = ["--quiet", "--warnings=batch", "--color", "0", "--ip", "one", "--nodns", "min"]
    run = testssl(
        *(*quiet, "--add-ca", house.config.data_dir / "authority.pem", "--jsonfile", folder / "findings.json"),
        *(*options, f"{maildrop.TLS_NAME}:{house.ports[door]}"),
        timeout_s=TESTSSL_S,
    )
    found = json.loads((folder / "findings.json").read_text())
    assert len(found) > 20, str(run)
    return {finding["id"]: finding for finding in found}
