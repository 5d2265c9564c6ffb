"""The part of `posthouse check` that looks at certificates and keys."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from posthouse.cli.findings import NOTE, OK, PROBLEM, Finding
from posthouse.cli.obstacles import certificate_advice
from posthouse.mail.words import duration

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.net.certificates import Pair

EXPIRES_SOON_S = 14 * 86400.0


def certificates(config: Config) -> Iterator[Finding]:
    """Every certificate that the house would use, with its key."""
    from posthouse.doors import certificate_pairs

    pairs = certificate_pairs(config)
    if pairs is None:
        if config.is_personal:
            return
        yield Finding("certificate", NOTE, "there is none, so no TLS is offered; name one in [tls]")
        return
    for pair in pairs.pairs:
        hosts = [host for host, named in pairs.named.items() if named == pair]
        if pair == pairs.default:
            hosts.insert(0, config.hostname)
        own = pair == pairs.default and config.tls.certificate is None
        yield from _pair(pair, hosts, own=own, config=config)


def _pair(pair: Pair, hosts: list[str], *, own: bool, config: Config) -> Iterator[Finding]:
    from posthouse.net.certificate_facts import certificate_facts
    from posthouse.net.tls import CertificateUnusable, server_context

    try:
        server_context(pair.certificate, pair.key)
        facts = certificate_facts(pair.certificate)
    except CertificateUnusable as exc:
        yield Finding("certificate", PROBLEM, f"{exc}{certificate_advice(config, exc)}")
        return
    yield _age(pair.certificate, facts.begins_at, facts.expires_at)
    for host in hosts:
        if not facts.covers(host):
            text = f"{pair.certificate} is not for {host} but for {', '.join(facts.names) or 'nobody'}; get one that is"
            yield Finding("certificate", PROBLEM, text)
    if own:
        text = "it is self-signed: other houses encrypt with it, mail programs warn; name one of a CA in [tls]"
        yield Finding("certificate", NOTE, text)
    elif not facts.is_self_signed and not facts.has_chain:
        text = f"{pair.certificate} holds no intermediate certificate; if its CA uses one, name the full chain"
        yield Finding("certificate", NOTE, text)
    yield from _key(pair.key)


def _age(certificate: Path, begins_at: float, expires_at: float) -> Finding:
    import time

    now = time.time()
    left = expires_at - now
    if begins_at > now:
        return Finding("certificate", PROBLEM, f"{certificate} is good only in {duration(begins_at - now)}")
    if left <= 0:
        return Finding("certificate", PROBLEM, f"{certificate} expired {duration(-left)} ago; renew it")
    if left < EXPIRES_SOON_S:
        return Finding("certificate", NOTE, f"{certificate} expires in {duration(left)}; renew it")
    return Finding("certificate", OK, f"{certificate} is good for {duration(left)}")


def _key(key: Path) -> Iterator[Finding]:
    """Whoever has the key is this house for everybody who trusts the certificate."""
    mode = key.stat().st_mode
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        yield Finding("key", PROBLEM, f"{key} is open to others; run: chmod o=,g-w {key}")
