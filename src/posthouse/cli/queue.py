"""`posthouse queue`: recipients that wait to be served elsewhere, and what an operator does to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from posthouse.cli.common import (
    ConfigOption,
    JsonOption,
    Problem,
    print_json,
    print_rows,
    printable,
    user_name,
    with_storage,
)
from posthouse.mail.ids import QUEUE_ID_PATTERN, QueueId
from posthouse.mail.journey import Operated
from posthouse.mail.spool import SpoolRow
from posthouse.mail.words import count, duration, size

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.storage.interfaces import Spool, Storage
    from posthouse.world import World

queue = typer.Typer(help="Recipients that wait to be served elsewhere.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(queue, name="queue")


QueueIdArgument = Annotated[str, typer.Argument(metavar="ID", show_default=False, help="The id that stood in the 250.")]
Operation = Callable[["Spool", QueueId, Operated], Awaitable[int]]


def queue_id_argument(text: str) -> QueueId:
    """A queue id from the command line."""
    if not QUEUE_ID_PATTERN.match(text.upper()):
        raise Problem(f"{text!r} is not a queue id: those are the 26 characters in the 250 and in Received")
    return QueueId(text.upper())


@queue.command("list")
def queue_list(config: ConfigOption = None, json: JsonOption = False) -> None:
    """What waits, since when, why, and when it is tried next."""
    rows, now, total = _read(config, None)
    if json:
        print_json([_fields(row) for row in rows])
        return
    shown = [
        {
            "queue_id": row.message.queue_id,
            "to": row.forward_path,
            "waiting_for": duration(now - row.message.accepted_at),
            "attempts": row.attempts,
            "next_try": _next_try(row, now),
            "why": row.last_reply or "not tried yet",
        }
        for row in rows
    ]
    print_rows(shown, list(shown[0]) if shown else [], as_json=False, empty="Nothing waits.")
    if total > len(rows):
        print(f"Shown are the first {count(len(rows), 'recipient', 'recipients')} of {total}.")


@queue.command("show")
def queue_show(queue_id: QueueIdArgument, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Everything about one waiting message."""
    wanted = queue_id_argument(queue_id)
    rows, now, _total = _read(config, wanted)
    if not rows:
        raise Problem(_not_waiting(wanted))
    if json:
        print_json([_fields(row) for row in rows])
        return
    message = rows[0].message
    sender = printable(rows[0].reverse_path) or "nobody (<>)"
    print(f"Message {wanted} from {sender}, {size(len(message.prefix) + message.content_octets)}")
    print(f"  accepted {duration(now - message.accepted_at)} ago; told in full by: posthouse journey {wanted}")
    for row in rows:
        print(f"  to {printable(row.forward_path)}")
        if row.destination.via:
            print(f"    leaves    through {printable(row.destination.via)}, as mail of {printable(row.identity)}")
        print(f"    tried     {count(row.attempts, 'time', 'times')}, next try {_next_try(row, now)}")
        print(f"    given up  in {duration(row.expires_at - now)}")
        print(f"    why       {printable(row.last_reply) or 'not tried yet'}")
        if row.deaths:
            print(f"    put off   the house ended {count(row.deaths, 'time', 'times')} while it was tried")
        if row.may_have_arrived:
            again, gone = f"posthouse queue retry {wanted}", f"posthouse queue remove {wanted}"
            print(f"    decide    ask whether it arrived; if not, send it again: {again}; if so: {gone}")


@queue.command("retry")
def queue_retry(queue_id: QueueIdArgument, config: ConfigOption = None) -> None:
    """Try a message again at once, or send again what may have arrived."""
    _operate(config, queue_id, "retry", "due at once", lambda spool, id_, event: spool.retry(id_, event.at, event))


@queue.command("hold")
def queue_hold(queue_id: QueueIdArgument, config: ConfigOption = None) -> None:
    """Keep a message back until it is released."""
    _operate(config, queue_id, "hold", "held", lambda spool, id_, event: spool.hold(id_, event))


@queue.command("release")
def queue_release(
    queue_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", show_default=False, help="The id that stood in the 250.")
    ] = None,
    config: ConfigOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All that is held, but what may have arrived.")] = False,
    restored: Annotated[bool, typer.Option("--restored", help="All that a restore held.")] = False,
) -> None:
    """Let held messages go on."""
    if (queue_id is not None) + everything + restored != 1:
        raise Problem("name one message, or give --restored (what a restore held) or --all")
    if queue_id is not None:
        _operate(config, queue_id, "release", "released", lambda spool, id_, event: spool.release(id_, event))
        return
    by = user_name()

    async def work(storage: Storage, _config: Config, world: World) -> int:
        def told(released: QueueId, paths: tuple[str, ...]) -> Operated:
            return Operated(queue_id=released, at=world.clock.now(), action="release", forward_paths=paths, by=by)

        return await storage.spool.release_all(told, restored=restored)

    print(f"{count(with_storage(config, work), 'recipient', 'recipients')} released.")


@queue.command("remove")
def queue_remove(queue_id: QueueIdArgument, config: ConfigOption = None) -> None:
    """Take a message out of the queue, without a report to its sender."""
    _operate(config, queue_id, "remove", "removed", lambda spool, id_, event: spool.remove(id_, event))


def _operate(config: ConfigOption, queue_id: str, action: str, did: str, operation: Operation) -> None:
    """Do it, write it into the journey, and say how many recipients it changed."""
    wanted = queue_id_argument(queue_id)
    by = user_name()

    async def work(storage: Storage, _config: Config, world: World) -> tuple[int, bool]:
        rows = await storage.spool.list(queue_id=wanted)
        paths = tuple(str(row.forward_path) for row in rows)
        event = Operated(queue_id=wanted, at=world.clock.now(), action=action, forward_paths=paths, by=by)
        return await operation(storage.spool, wanted, event), bool(rows)

    changed, waits = with_storage(config, work)
    if not waits:
        raise Problem(_not_waiting(wanted))
    print(f"{count(changed, 'recipient', 'recipients')} {did}.")
    if not changed:
        raise Problem(f"nothing to {action} in {wanted}; its state: posthouse queue show {wanted}")


def _read(config: ConfigOption, queue_id: QueueId | None) -> tuple[tuple[SpoolRow, ...], float, int]:
    """Rows, the time they were read at, and how many wait in all."""

    async def work(storage: Storage, _config: Config, world: World) -> tuple[tuple[SpoolRow, ...], float, int]:
        rows = await storage.spool.list(queue_id=queue_id)
        return rows, world.clock.now(), await storage.spool.count()

    return with_storage(config, work)


def _not_waiting(queue_id: QueueId) -> str:
    return f"{queue_id} does not wait; what became of it: posthouse journey {queue_id}"


def _fields(row: SpoolRow) -> dict[str, object]:
    return {
        "queue_id": row.message.queue_id,
        "forward_path": str(row.forward_path),
        "reverse_path": str(row.reverse_path or ""),
        "destination": row.destination.domain,
        "via": row.destination.via or None,
        "accepted_at": row.message.accepted_at,
        "not_before": row.not_before,
        "expires_at": row.expires_at,
        "attempts": row.attempts,
        "held": row.held,
        "held_by_restore": row.held_by_restore,
        "claimed": row.claimed,
        "sending_at": row.sending_at,
        "may_have_arrived": row.may_have_arrived,
        "deaths": row.deaths,
        "last_reply": row.last_reply,
        "size_octets": len(row.message.prefix) + row.message.content_octets,
    }


def _next_try(row: SpoolRow, now: float) -> str:
    if row.may_have_arrived:
        return "held, may have arrived"
    if row.held:
        return "held by restore" if row.held_by_restore else "held"
    if row.claimed:
        return "now"
    return f"in {duration(row.not_before - now)}" if row.not_before > now else "due"
