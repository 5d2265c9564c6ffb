"""What `posthouse queue` does to waiting recipients: to one message at once, to many after a count and a question."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from posthouse.cli.common import ConfigOption, Problem, printable, user_name, with_storage
from posthouse.cli.progress import progress_shown
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Operated
from posthouse.mail.queue_filter import Held, QueueFilter
from posthouse.mail.spool import AT_ONCE, Action, SpoolRow, Tally
from posthouse.mail.waiting import state_of
from posthouse.mail.words import count, duration
from posthouse.storage.upkeep import Progress, Tell

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.storage.interfaces import Storage
    from posthouse.world import World

DESTINATIONS = 10
EXAMPLES = 5
_DONE = {
    Action.RETRY: "due at once",
    Action.HOLD: "held",
    Action.RELEASE: "released",
    Action.REMOVE: "removed",
}
_QUESTION = {
    Action.RETRY: "Try them again at once?",
    Action.HOLD: "Hold them?",
    Action.RELEASE: "Let them go on?",
    Action.REMOVE: "Remove them, without a report to their senders?",
}
# What each can be done to, for the examples of a dry run.
_STATES: dict[Action, QueueFilter] = {
    Action.RETRY: (Held(held=False),),
    Action.HOLD: (Held(held=False),),
    Action.RELEASE: (Held(),),
    Action.REMOVE: (),
}


@dataclass(frozen=True, slots=True)
class Wishes:
    """How to go about it."""

    yes: bool = False
    dry_run: bool = False


def operate_on_one(config: ConfigOption, action: Action, wanted: QueueId) -> None:
    """Do it to one message, write it into the journey, and say how many recipients it changed."""
    by = user_name()

    async def work(storage: Storage, _config: Config, world: World) -> tuple[int, bool]:
        spool, now = storage.spool, world.clock.now()
        rows = await spool.list(queue_id=wanted)
        paths = tuple(str(row.forward_path) for row in rows)
        event = Operated(queue_id=wanted, at=now, action=str(action), forward_paths=paths, by=by)
        match action:
            case Action.RETRY:
                changed = await spool.retry(wanted, AT_ONCE, event)
            case Action.HOLD:
                changed = await spool.hold(wanted, event)
            case Action.RELEASE:
                changed = await spool.release(wanted, event)
            case Action.REMOVE:
                changed = await spool.remove(wanted, event)
        return changed, bool(rows)

    changed, waits = with_storage(config, work)
    if not waits:
        raise Problem(f"{wanted} does not wait; what became of it: posthouse journey {wanted}")
    print(f"{count(changed, 'recipient', 'recipients')} {_DONE[action]}.")
    if not changed:
        raise Problem(f"nothing to {action} in {wanted}; its state: posthouse queue show {wanted}")


def operate(config: ConfigOption, action: Action, wanted: QueueFilter, wishes: Wishes) -> None:
    """Count what it would be done to, ask, and do it."""
    by = user_name()

    async def work(storage: Storage, _config: Config, world: World) -> int | None:
        spool, now = storage.spool, world.clock.now()
        tally = await spool.tally(wanted, action)
        if not tally.recipients:
            others = await spool.count(wanted)
            rest = f"; {count(others, 'recipient fits', 'recipients fit')}, but there is nothing to {action}"
            print(f"0 recipients {_DONE[action]}{rest if others else ': nothing that fits waits'}.")
        else:
            print_tally(tally, action, now)
        if action is Action.RETRY and not any(isinstance(term, Held) for term in wanted):
            _print_held(await spool.count((*wanted, Held())))
        if not tally.recipients:
            return None
        if wishes.dry_run:
            _print_examples(await spool.list(EXAMPLES, wanted=(*wanted, *_STATES[action])), now)
            print("Nothing was changed.")
            return None
        if not wishes.yes:
            _ask(action)

        with progress_shown() as tell:
            return await spool.operate(action, wanted, by, _of(tally.recipients, tell))

    changed = with_storage(config, work)
    if changed is not None:
        print(f"{count(changed, 'recipient', 'recipients')} {_DONE[action]}.")


def print_tally(tally: Tally, action: Action, now: float) -> None:
    """How many, where to, since when."""
    recipients = count(tally.recipients, "recipient", "recipients")
    oldest = duration(now - tally.oldest_at)
    print(f"To {action}: {recipients} of {count(tally.messages, 'message', 'messages')}, waiting for up to {oldest}.")
    shown = tally.destinations[:DESTINATIONS]
    for each in shown:
        via = f" through {printable(each.destination.via)}" if each.destination.via else ""
        print(f"{each.recipients:>9}  {printable(each.destination.domain)}{via}")
    rest = tally.destinations[DESTINATIONS:]
    if rest:
        others = count(len(rest), "other destination", "other destinations")
        print(f"{sum(each.recipients for each in rest):>9}  in {others}")
    # (A question on standard error must come below it.)
    sys.stdout.flush()


def _print_held(held: int) -> None:
    """Whoever asks for another try of all that fits is told what is not tried."""
    if held:
        print(f"{count(held, 'recipient that fits is', 'recipients that fit are')} held, and not tried until released.")
        sys.stdout.flush()


def _print_examples(rows: tuple[SpoolRow, ...], now: float) -> None:
    print("For example:")
    for row in rows:
        waited = duration(now - row.message.accepted_at)
        print(f"  {row.message.queue_id}  to {printable(row.forward_path)}, for {waited}, {state_of(row, now)}")


def asked_by_somebody() -> bool:
    """Whether there is a person to answer."""
    return sys.stdin.isatty()


def _ask(action: Action) -> None:
    """Raises Problem unless somebody says yes."""
    if not asked_by_somebody():
        raise Problem("nothing was done, as nobody is there to ask; do it with --yes, or only look with --dry-run")
    print(f"{_QUESTION[action]} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Problem("nothing was done")


def _of(total: int, tell: Tell) -> Tell:
    return lambda progress: tell(Progress(progress.step, progress.done, total))
