"""What would stop a house from starting, in the words that `check` and `serve` share: disk, clock, ports.

Each is one line that says what is wrong and the command that mends it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from posthouse.cli.common import Problem, mount_point, require_writable_disk
from posthouse.cli.findings import NOTE, OK, PROBLEM, Finding
from posthouse.mail.words import duration, moment, size

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.net.listener import PortTaken
    from posthouse.net.tls import CertificateUnusable

LEAST_FREE_OCTETS = 4 * 1024 * 1024
"""With less, not even the files of a start can be written."""
LITTLE_FREE_OCTETS = 64 * 1024 * 1024
"""With less, messages of the usual size limit are refused."""
NOTED_FREE_OCTETS = 512 * 1024 * 1024
LEAST_FREE_FILES = 100
EARLIEST = 1_704_067_200.0
"""The beginning of 2024, before which there was no posthouse: a clock before it was never set."""
CLOCK_WRONG_S = 300.0
CLOCK_FAR_OFF_S = 86_400.0
"""A jump that nobody would explain by a time server that corrects the clock; `serve` refuses from here on."""
_SET_CLOCK = "set it with: timedatectl set-ntp true"


def clock_problem(data_dir: Path, now: float | None = None) -> str | None:
    """Why `serve` must not go by the machine's clock; None where nothing speaks against it.

    Dates of messages, queue ids, expiry and certificates go by it.
    """
    found = clock(data_dir, now=now, tolerated_s=CLOCK_FAR_OFF_S)
    return found.text if found.state == PROBLEM else None


def disk_problem(data_dir: Path) -> str | None:
    """Why a house could not even open there. Who deletes mail makes room, so a disk that is nearly full is none."""
    found = disk(data_dir)
    if found.state != PROBLEM:
        return None
    try:
        facts = os.statvfs(data_dir)
    except FileNotFoundError:
        return found.text
    except OSError:
        # Its owner may look; whose it is, is told elsewhere.
        return None
    free = facts.f_bavail * facts.f_frsize
    hopeless = facts.f_flag & os.ST_RDONLY or free < LEAST_FREE_OCTETS or (facts.f_files and not facts.f_favail)
    return found.text if hopeless else None


def disk(folder: Path) -> Finding:
    """Whether the house can write there, and for how long still."""
    try:
        facts = os.statvfs(folder)
        require_writable_disk(folder)
    except FileNotFoundError:
        return Finding("disk", PROBLEM, f"{folder} does not exist; make a house with: posthouse init")
    except OSError as exc:
        return Finding("disk", PROBLEM, f"{folder} cannot be looked at: {exc.strerror}; see: sudo ls -ld {folder}")
    except Problem as problem:
        return Finding("disk", PROBLEM, str(problem))
    mount = mount_point(folder)
    if facts.f_files and facts.f_favail < LEAST_FREE_FILES:
        text = f"no more files can be made on {mount}, and mail is refused for the time being; see: df -i {mount}"
        return Finding("disk", PROBLEM, text)
    free = facts.f_bavail * facts.f_frsize
    if free < NOTED_FREE_OCTETS:
        what = "nearly full" if free >= LEAST_FREE_OCTETS else "full"
        text = (
            f"{mount} is {what}: {size(free)} are free; see what is large: sudo du -xh --max-depth=2 {mount} | sort -h"
        )
        return Finding("disk", PROBLEM if free < LITTLE_FREE_OCTETS else NOTE, text)
    return Finding("disk", OK, f"{size(free)} are free for {folder}")


def clock(
    data_dir: Path, newest: float | None = None, *, now: float | None = None, tolerated_s: float = CLOCK_WRONG_S
) -> Finding:
    """Whether the machine's clock can be right. `newest`: when the newest journey began."""
    now = time.time() if now is None else now
    written = last_written(data_dir)
    if now < EARLIEST:
        return Finding("clock", PROBLEM, f"the machine's clock says {moment(now)}, and that is wrong; {_SET_CLOCK}")
    if newest is not None and now < newest - tolerated_s:
        behind = f"{duration(newest - now)} before the newest message that came here"
        return Finding("clock", PROBLEM, f"the machine's clock says {moment(now)}, {behind}; {_SET_CLOCK}")
    if written is not None and now < written - tolerated_s:
        behind = f"{duration(written - now)} before the last change in this house"
        # The clock may have been wrong then, and right now.
        mend = f"{_SET_CLOCK} (it is right? then run: touch {data_dir}/posthouse.db*)"
        return Finding("clock", PROBLEM, f"the machine's clock says {moment(now)}, {behind}; {mend}")
    return Finding("clock", OK, moment(now))


def last_written(data_dir: Path) -> float | None:
    """When the database was last written, by the clock of then."""
    times = []
    for name in ("posthouse.db", "posthouse.db-wal"):
        try:
            times.append((data_dir / name).stat().st_mtime)
        except OSError:
            continue
    return max(times, default=None)


def certificate_advice(config: Config, problem: CertificateUnusable) -> str:
    """What to do about a certificate that cannot be used. Goes behind it."""
    from posthouse.doors import SELF_SIGNED

    certificate, key = (config.data_dir / name for name in SELF_SIGNED)
    if not str(problem).startswith((str(certificate), str(key))) or (certificate.exists() and key.exists()):
        return "; name a certificate and its key in [tls] of the configuration"
    options = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650"
    names = f"-subj /CN={config.hostname[:64]} -addext subjectAltName=DNS:{config.hostname}"
    return f"; name one in [tls], or make one: openssl req -x509 {options} {names} -keyout {key} -out {certificate}"


def port_advice(problem: PortTaken) -> str:
    """What to do about a port that cannot be opened, and who holds it, as far as that can be seen. Goes behind it."""
    from posthouse.cli.port_owner import port_owner

    if problem.is_forbidden:
        # By its path: sudo looks for programs in the system's folders only, and this one is in a virtual environment.
        started = Path(sys.argv[0])
        program = started if started.is_absolute() and started.name == "posthouse" else "posthouse"
        return f"; run: sudo {program} serve, or change [listen] in the configuration"
    if not problem.is_used:
        return "; change [listen] in the configuration"
    owner = port_owner(problem.host, problem.port)
    if owner is None:
        which = f"see which: sudo ss -ltnp sport = :{problem.port}"
        return f"; {which}, and end that one, or change [listen] in the configuration"
    return f": {owner}; end it with: {owner.ending} (or change [listen] in the configuration)"
