"""The demo's two houses and how they are set up."""

from __future__ import annotations

from pathlib import Path

from posthouse.trial.house import TrialHouse, free_ports

_CONFIG = """\
hostname = "{name}"
data_dir = "."
postmaster = "{postmaster}"

[listen]
smtp = ["127.0.0.1:{smtp}"]
submission = ["127.0.0.1:{submission}"]
pop3 = ["127.0.0.1:{pop3}"]

[auth]
allow_cleartext = true            # a trial on loopback

[forwarding]
# Nothing leaves this computer: the neighbour is a route, everything else leads to a closed port.
routes = {{ "{neighbour}" = "127.0.0.1:{neighbour_port}", "*" = "127.0.0.1:1" }}
retry = ["1s", "2s", "5s", "10s"]
"""


def make_pair(folder: Path) -> tuple[TrialHouse, TrialHouse]:
    """North and South, on six free ports of this computer."""
    a, b, c, d, e, f = free_ports(6)
    north = TrialHouse("north.test", folder / "north", smtp=a, submission=b, pop3=c)
    south = TrialHouse("south.test", folder / "south", smtp=d, submission=e, pop3=f)
    return north, south


async def build(house: TrialHouse, neighbour: TrialHouse, people: tuple[str, ...]) -> None:
    """A house that knows its neighbour, and nobody else."""
    config = _CONFIG.format(
        name=house.name,
        postmaster=f"{people[0]}@{house.name}",
        smtp=house.smtp,
        submission=house.submission,
        pop3=house.pop3,
        neighbour=neighbour.name,
        neighbour_port=neighbour.smtp,
    )
    await house.build(config, people)
