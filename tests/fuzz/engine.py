"""The fuzzer itself: which modules it watches, and one target with its corpus until the time is over."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

WATCHED = (
    *("posthouse.mail", "posthouse.protocol", "posthouse.net", "posthouse.admission", "posthouse.retrieval"),
    *("posthouse.identity.hashes", "posthouse.identity.sha512_crypt", "posthouse.config_values", "posthouse.log"),
    *("posthouse.cli.check_spf", "posthouse.cli.account_import"),
    *("dns.message", "dns.name", "dns.wire", "dns.rdata", "dns.rdataset", "dns.resolver", "dns.asyncresolver"),
    *("dns.rdtypes.mxbase", "dns.rdtypes.txtbase", "dns.rdtypes.nsbase", "dns.rdtypes.IN.A", "dns.rdtypes.IN.AAAA"),
)
"""What foreign octets go through. To watch all that is imported would take a quarter of a minute to begin."""
SLOW_S = 60
"""A single input of a few hundred octets that takes so long is a finding. (Machines stand still at times.)"""


def available() -> bool:
    """Whether there is a fuzzer for this Python and this machine."""
    return importlib.util.find_spec("atheris") is not None


@contextmanager
def instrumented() -> Iterator[None]:
    """What is imported inside is watched, as far as WATCHED names it."""
    import atheris

    said = os.dup(2)
    # Its one line for each module.
    with Path(os.devnull).open("wb") as nowhere:
        sys.stderr.flush()
        os.dup2(nowhere.fileno(), 2)
    try:
        with atheris.instrument_imports(include=["posthouse", "dns"], exclude=_not_watched()):
            yield
    finally:
        sys.stderr.flush()
        os.dup2(said, 2)
        os.close(said)


def _not_watched() -> list[str]:
    names = [name for package in ("posthouse", "dns") for name in _modules(package)]
    return [name for name in names if not any(name == each or name.startswith(f"{each}.") for each in WATCHED)]


def _modules(package: str) -> Iterator[str]:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    for place in spec.submodule_search_locations or ():
        for path in Path(place).rglob("*.py"):
            parts = path.relative_to(place).with_suffix("").parts
            yield ".".join((package, *(part for part in parts if part != "__init__")))


def fuzz(name: str, folder: Path, log: Path, seconds: int, seed: int) -> NoReturn:
    """Fuzz one target in this process, which ends with it."""
    import atheris
    from tests.fuzz.seeds import seeds
    from tests.fuzz.targets import TARGETS, corpus

    with log.open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    target = TARGETS[name]
    inputs = folder / "corpus"
    inputs.mkdir(exist_ok=True)
    for octets in (*seeds(name), *corpus(name)):
        (inputs / hashlib.sha256(octets).hexdigest()[:16]).write_bytes(octets[: target.max_octets])
    words = folder / "words.dict"
    words.write_text("".join(f'"{_quoted(word)}"\n' for word in target.words))
    settings = [
        f"-max_total_time={seconds}",
        f"-max_len={target.max_octets}",
        f"-timeout={SLOW_S}",
        f"-seed={seed}",
        f"-dict={words}",
        f"-artifact_prefix={folder}/",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
    ]
    atheris.Setup(["fuzz", *settings, str(inputs)], target.run)
    # It ends the process, and writes down a finding on its way out.
    atheris.Fuzz()
    raise SystemExit(1)


def _quoted(word: bytes) -> str:
    return "".join(f"\\x{octet:02x}" for octet in word)
