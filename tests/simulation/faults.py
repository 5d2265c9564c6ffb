"""What can befall a world. Each seed enables some of it (swarm testing) and draws when, where and how."""

from __future__ import annotations

from enum import Enum
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.disk import FULL, Window
from tests.simulation.house import Death
from tests.simulation.network import Break, End, Weather
from tests.simulation.places import GOOD, ODD, OUTSIDE, address_of
from tests.storage.crash.recording import Kind, Trouble

if TYPE_CHECKING:
    from tests.simulation.house import SimulatedHouse
    from tests.simulation.world import Simulation

HOUR_S = 3600.0
DAY_S = 86400.0


class Adversity(Enum):
    """The kinds that a seed may enable."""

    KILL = "kill"
    POWER = "power"
    RESTART = "restart"
    RELOAD = "reload"
    TAKEOVER = "takeover"
    PARTITION = "partition"
    DOWN = "down"
    BREAKS = "breaks"
    PIECES = "pieces"
    SLOW = "slow"
    STORM = "storm"
    FULL_DISK = "full-disk"
    BAD_DISK = "bad-disk"
    CLOCK = "clock"
    DNS = "dns"


def enabled(chance: Random) -> frozenset[Adversity]:
    """About half of them; one seed in ten has fair weather."""
    if chance.random() < 0.1:
        return frozenset()
    return frozenset(kind for kind in Adversity if chance.random() < 0.45)


def plan(world: Simulation, kinds: frozenset[Adversity]) -> None:
    """Put what will happen on the loop, up to the time when all is well again."""
    for kind in Adversity:
        chance = world.chance(f"fault {kind.value}")
        if kind in kinds:
            for _ in range(chance.randint(1, 3)):
                _PLANS[kind](world, chance)
    if kinds & {Adversity.BREAKS, Adversity.PIECES, Adversity.SLOW}:
        _change_weather(world, kinds)


def _change_weather(world: Simulation, kinds: frozenset[Adversity]) -> None:
    chance = world.chance("weather")

    def weather(_source: str, _target: str) -> Weather:
        drawn = Weather()
        if world.is_healed:
            return drawn
        if Adversity.SLOW in kinds and chance.random() < 0.3:
            drawn.latency_s = chance.choice([0.5, 5.0, 40.0])
        drawn.pieces = Adversity.PIECES in kinds and chance.random() < 0.5
        if Adversity.BREAKS in kinds and chance.random() < 0.3:
            how = chance.choice(list(End))
            if chance.random() < 0.4:
                drawn.back = Break(how, 0, at_reply=True)
            elif chance.random() < 0.5:
                drawn.out = Break(how, chance.randrange(1500))
            else:
                drawn.back = Break(how, chance.randrange(700))
        return drawn

    world.network.weather = weather


def _house(world: Simulation, chance: Random) -> SimulatedHouse:
    return world.houses[chance.randrange(len(world.houses))]


def _later(world: Simulation, chance: Random) -> float:
    return chance.uniform(0.0, world.active_s)


def _kill(world: Simulation, chance: Random, how: Death = Death.KILLED) -> None:
    """After a number of steps from some moment on: in the middle of something, more often than not."""
    house, steps = _house(world, chance), int(chance.expovariate(1 / 60)) + 1

    def arm() -> None:
        house.dies_by, house.dies_in = how, steps

    world.at(_later(world, chance), arm)


def _power(world: Simulation, chance: Random) -> None:
    _kill(world, chance, Death.POWER_CUT)


def _restart(world: Simulation, chance: Random) -> None:
    world.at(_later(world, chance), _house(world, chance).end)


def _reload(world: Simulation, chance: Random) -> None:
    world.at(_later(world, chance), _house(world, chance).reload)


def _takeover(world: Simulation, chance: Random) -> None:
    """After some steps of the attempts that are under way from some moment on, and again after some more."""
    house = _house(world, chance)
    steps = [int(chance.expovariate(1 / 15)) + 1 for _ in range(6)]

    def arm() -> None:
        house.loses_claims_in, house.loses_claims_next = steps[0], steps[1:]

    world.at(_later(world, chance) / 2, arm)


def _partition(world: Simulation, chance: Random) -> None:
    one = _house(world, chance).host.address
    others = [address for address in world.network.hosts if address != one]
    other, began = others[chance.randrange(len(others))], _later(world, chance)
    world.at(began, lambda: world.part(one, other))
    world.at(began + chance.expovariate(1 / HOUR_S), lambda: world.join(one, other))


def _down(world: Simulation, chance: Random) -> None:
    host = world.network.hosts[chance.choice(list(OUTSIDE.values()))]
    began, length = _later(world, chance), chance.choice([HOUR_S, DAY_S, 4 * DAY_S]) * chance.random()

    def turn(is_off: bool) -> None:
        host.is_off = is_off
        if is_off:
            for end in list(host.ends):
                end.abort()

    world.at(began, lambda: turn(True))
    world.at(began + length, lambda: turn(False))


def _storm(world: Simulation, chance: Random) -> None:
    host = world.outside[chance.choice([GOOD, ODD])]
    where = chance.choice(["greeting", "EHLO", "MAIL", "RCPT", "DATA", "."])
    code = chance.choice(["421", "450", "452", "550", "554"])
    began, length = _later(world, chance), chance.expovariate(1 / (4 * HOUR_S))

    def mood(text: str) -> None:
        host.mood = lambda: text

    world.at(began, lambda: mood(f"{where} {code}"))
    world.at(began + length, lambda: mood(""))


def _trouble(world: Simulation, chance: Random, trouble: Trouble, kinds: frozenset[Kind]) -> None:
    house, began = _house(world, chance), _later(world, chance)
    window = Window(trouble, kinds, chance.choice([0.05, 0.3, 1.0]), chance)

    def begin() -> None:
        world.tell(house.name, "disk", trouble.value)
        house.trouble = window

    def end() -> None:
        if house.trouble is window:
            house.trouble = None

    world.at(began, begin)
    world.at(began + chance.expovariate(1 / HOUR_S), end)


def _full_disk(world: Simulation, chance: Random) -> None:
    _trouble(world, chance, chance.choice([Trouble.FULL, Trouble.OVER_QUOTA]), FULL)


def _bad_disk(world: Simulation, chance: Random) -> None:
    kinds = chance.choice(
        [frozenset({Kind.SYNC}), frozenset({Kind.SYNC, Kind.SYNC_FOLDER, Kind.WRITE}), frozenset(Kind)]
    )
    _trouble(world, chance, Trouble.BROKEN, kinds)


def _clock(world: Simulation, chance: Random) -> None:
    house, wrong_s = _house(world, chance), chance.choice([HOUR_S, DAY_S, 400 * DAY_S]) * chance.uniform(-1, 1)
    began = _later(world, chance)

    def set_clock(seconds: float) -> None:
        world.tell(house.name, "clock", round(seconds))
        house.clock.wrong_s = seconds

    world.at(began, lambda: set_clock(wrong_s))
    world.at(began + chance.expovariate(1 / HOUR_S), lambda: set_clock(0.0))


def _dns(world: Simulation, chance: Random) -> None:
    what = chance.choice(["timeout", "servfail", "lies", address_of(0), OUTSIDE[GOOD]])
    name = chance.choice([GOOD, ODD, f"mx.{GOOD}", "a.test", "b.test"])
    began = _later(world, chance)

    def say(names: str, said: str) -> None:
        world.names.trouble = lambda asked: said if asked == names else ""

    world.at(began, lambda: say(name, what))
    world.at(began + chance.expovariate(1 / (4 * HOUR_S)), lambda: say(name, ""))


_PLANS = {
    Adversity.KILL: _kill,
    Adversity.POWER: _power,
    Adversity.RESTART: _restart,
    Adversity.RELOAD: _reload,
    Adversity.TAKEOVER: _takeover,
    Adversity.PARTITION: _partition,
    Adversity.DOWN: _down,
    Adversity.BREAKS: lambda _world, _chance: None,
    Adversity.PIECES: lambda _world, _chance: None,
    Adversity.SLOW: lambda _world, _chance: None,
    Adversity.STORM: _storm,
    Adversity.FULL_DISK: _full_disk,
    Adversity.BAD_DISK: _bad_disk,
    Adversity.CLOCK: _clock,
    Adversity.DNS: _dns,
}
