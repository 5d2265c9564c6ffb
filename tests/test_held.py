"""What the parent of several workers keeps of files: always what was last usable."""

from __future__ import annotations

import io
import ssl
from pathlib import Path

import pytest

from posthouse.config import ConfigError
from posthouse.doors import Doors
from posthouse.held import HeldFiles
from posthouse.log import make_log
from posthouse.net.certificates import LOOK_EVERY_S
from posthouse.net.tls import CertificateUnusable, make_self_signed
from posthouse.workers import Part
from tests.fake_world import FakeClock
from tests.running_house import house_config

NAME = "mx.here.test"
BROKEN = "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"


def renew(folder: Path, clock: FakeClock) -> None:
    for name in ("self-signed.crt", "self-signed.key"):
        (folder / name).unlink(missing_ok=True)
    make_self_signed(NAME, folder / "self-signed.crt", folder / "self-signed.key", clock.now())


def of_a_worker(held: HeldFiles, folder: Path, clock: FakeClock) -> tuple[ssl.SSLContext, str]:
    """What the doors of a worker that begins now offer, and its log."""
    log = io.StringIO()
    doors = Doors(Part(number=1, count=2), clock, make_log(log, json=True), held.certificates)
    doors.use_certificates(house_config(folder))
    door = doors.tls("submissions")
    assert door is not None
    return door._choose(None), log.getvalue()


def test_what_was_renewed_is_kept_when_it_breaks(tmp_path: Path) -> None:
    clock = FakeClock()
    renew(tmp_path, clock)
    held = HeldFiles(house_config(tmp_path), clock)
    assert of_a_worker(held, tmp_path, clock)[1] == ""
    assert held.certificates is not None
    at_first = held.certificates.door("submissions")._choose(None)
    renew(tmp_path, clock)
    clock.advance(LOOK_EVERY_S)
    held.look()
    (tmp_path / "self-signed.crt").write_text(BROKEN)
    clock.advance(LOOK_EVERY_S)
    held.look()
    kept, log = of_a_worker(held, tmp_path, clock)
    assert "certificate cannot be used; the one before stays in use" in log
    again, _log = of_a_worker(held, tmp_path, clock)
    assert kept is again, "it is not read again: there is nothing that could be"
    assert kept is not at_first
    # Once it is whole again, the next look takes it.
    renew(tmp_path, clock)
    whole, log = of_a_worker(held, tmp_path, clock)
    assert log == ""
    assert whole is not kept


def test_other_files_than_those_in_use_are_not_replaced_by_them(tmp_path: Path) -> None:
    clock = FakeClock()
    renew(tmp_path, clock)
    held = HeldFiles(house_config(tmp_path), clock)
    tls = {"certificate": "other.crt", "key": "other.key"}
    doors = Doors(Part(number=1, count=2), clock, make_log(io.StringIO()), held.certificates)
    with pytest.raises(CertificateUnusable):
        doors.use_certificates(house_config(tmp_path, tls=tls))


def test_a_reload_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    renew(tmp_path, clock)
    held = HeldFiles(house_config(tmp_path), clock)
    before = held.certificates, held.outgoing
    login = {"routes": {"*": "smtp.test:587"}, "login": {"smtp.test:587": {"user": "me", "password_file": "none"}}}
    with pytest.raises(ConfigError, match=r"forwarding\.login"):
        held.reload(house_config(tmp_path, forwarding=login))
    (tmp_path / "self-signed.crt").write_text(BROKEN)
    with pytest.raises(CertificateUnusable):
        held.reload(house_config(tmp_path))
    assert (held.certificates, held.outgoing) == before
