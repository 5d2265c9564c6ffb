"""The part of `posthouse check` about accounts at other houses: their passwords, and how collecting went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posthouse.cli.findings import NOTE, OK, PROBLEM, Finding
from posthouse.mail.words import moment

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.mail.source import Source
    from posthouse.storage.interfaces import Storage


async def elsewhere(storage: Storage, config: Config) -> list[Finding]:
    """One finding for each account; one where a personal house has none. No program that prints a token is run."""
    from posthouse.collecting import vault_of
    from posthouse.vault import SecretMissing

    vault = vault_of(config)
    findings = []
    for source in await storage.sources.all():
        try:
            if not source.settings.secret.startswith("command:"):
                await vault.read(source.settings.secret)
        except SecretMissing as exc:
            address = source.settings.address
            mend = f"run: posthouse change-account {address} --password"
            findings.append(Finding("account", PROBLEM, f"{address} needs a password: {exc}; {mend}"))
        else:
            findings.append(_source(source))
    if not findings and config.is_personal:
        text = "no mail is collected from anywhere; run: posthouse add-account you@example.org"
        findings.append(Finding("account", NOTE, text))
    return findings


def _source(source: Source) -> Finding:
    address, state = source.settings.address, source.state
    if state.refused:
        mend = f"run: posthouse change-account {address} --password"
        return Finding("account", PROBLEM, f"{address} needs a password: {state.failure}; {mend}")
    if state.failure:
        last = f"it went well last at {moment(state.collected_at)}" if state.collected_at else "it never went well"
        return Finding("account", PROBLEM, f"{address} is not collected from: {state.failure}; {last}")
    if state.collected_at is None:
        return Finding("account", OK, f"{address} was not collected from yet")
    return Finding("account", OK, f"{address} was collected from at {moment(state.collected_at)}")
