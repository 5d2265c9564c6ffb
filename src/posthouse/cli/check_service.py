"""The part of `posthouse check` about the user that the service becomes: does it exist, may it read and write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from posthouse.cli.common import user_name
from posthouse.cli.findings import NOTE, OK, PROBLEM, Finding
from posthouse.service.user import NoSuchUser, ServiceUser, as_user, can_read, chosen_user, find_user, opening

if TYPE_CHECKING:
    from posthouse.config import Config


def service_findings(config: Config, file: Path) -> Iterator[Finding]:
    """What would stop the service, tried as its user where we are root. Called before root is given up."""
    try:
        user = _runs_as(config)
    except NoSuchUser as exc:
        yield Finding("user", PROBLEM, str(exc))
        return
    if user is None:
        text = "a house that root starts stays root; run: posthouse service install, or set user in the configuration"
        yield Finding("user", NOTE, text)
        return
    if os.geteuid() != 0 and not user.is_us:
        yield Finding("user", PROBLEM, f"the house runs as {user.name}, and this is {user_name()}; check it as root")
        return
    yield from _rights(config, file, user)


def _runs_as(config: Config) -> ServiceUser | None:
    if os.geteuid() == 0:
        return chosen_user(config.user, config.data_dir)
    return find_user(config.user) if config.user is not None else ServiceUser(user_name(), os.geteuid(), os.getegid())


def _rights(config: Config, file: Path, user: ServiceUser) -> Iterator[Finding]:
    from posthouse.doors import certificate_pairs

    pairs = certificate_pairs(config)
    files = [file, *(path for pair in pairs.pairs for path in (pair.certificate, pair.key))] if pairs else [file]
    # A file that is not there is told with the certificates.
    files = [path for path in dict.fromkeys(files) if os.path.lexists(path)]

    def look() -> list[bool]:
        return [os.access(config.data_dir, os.R_OK | os.W_OK | os.X_OK), *map(can_read, files)]

    writes, *read = as_user(user, look)
    wrong = [path for path, can in zip(files, read, strict=True) if not can]
    if not writes:
        text = f"{config.data_dir} cannot be written by {user.name}; run: chown -R {user.name}: {config.data_dir}"
        yield Finding("user", PROBLEM, text)
    for path in wrong:
        how = f"run: {opening(user, path)}" if opening(user, path) else "let it be read"
        yield Finding("user", PROBLEM, f"{path} cannot be read by {user.name}, whom the house runs as; {how}")
    if writes and not wrong:
        yield Finding("user", OK, f"{user.name} reads the keys and writes the mail")
