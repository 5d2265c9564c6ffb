"""`posthouse journey`: what became of a message."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posthouse.cli.common import ConfigOption, JsonOption, Problem, print_json, printable, with_storage
from posthouse.cli.story_layout import Told, listed, story
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import kind_of
from posthouse.mail.journey_words import words_of
from posthouse.mail.standing import related, standing
from posthouse.mail.story import tell
from posthouse.mail.words import duration

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.storage.interfaces import Journey, Storage
    from posthouse.world import World

STORIES_AT_ONCE = 5
"""More journeys than that are listed, unless their dialogues are wanted."""
MOST_JOURNEYS = 1000
WIDEST = 120
"""Longer lines are hard to read, however wide the terminal is."""
QUEUE_ID_CHARACTERS = 26
LEAST_CHARACTERS = 8
_SHOWN_IDS = 3
_CROCKFORD = frozenset("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
# As read aloud or from paper: Crockford's base 32 has no I, L and O.
_MISREAD = str.maketrans("ILO", "110")
_WAYS = "posthouse journey ID, or --to ADDRESS, --from ADDRESS, --message-id ID, --reply WORDS, --refused, --since 2h"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was asked for. `queue_id` may be only its beginning."""

    queue_id: str | None = None
    message_id: str | None = None
    reverse_path: str | None = None
    forward_path: str | None = None
    reply: str | None = None
    refused: bool = False
    since_s: float | None = None
    limit: int = 20

    @property
    def is_list(self) -> bool:
        """Whether nothing is an answer, too."""
        return self.queue_id is None and self.message_id is None


def register(app: typer.Typer) -> None:
    """Add the commands that stand alone."""
    app.command("journey")(journey)


def journey(
    message: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="The id that stood in the 250, or its beginning; or a Message-ID."),
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
    to: Annotated[str | None, typer.Option("--to", metavar="ADDRESS", help="Messages to this address.")] = None,
    sender: Annotated[str | None, typer.Option("--from", metavar="ADDRESS", help="Messages from this address.")] = None,
    message_id: Annotated[
        str | None, typer.Option("--message-id", metavar="ID", help="The Message-ID of its header.")
    ] = None,
    reply: Annotated[
        str | None,
        typer.Option("--reply", metavar="WORDS", help="Words that the other server said, or a code such as 4.7.28."),
    ] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Mail that was refused here.")] = False,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="What came (with --reply: was said) since, as in 2h.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="COUNT", help="How many at most, the newest first.")] = 20,
    transcript: Annotated[
        bool, typer.Option("--transcript", "-v", help="Also what was said with other servers, line by line.")
    ] = False,
) -> None:
    """Tell what became of a message."""
    wanted = _wanted(message, message_id, to=to, sender=sender, reply=reply, refused=refused, since=since, limit=limit)

    async def work(storage: Storage, config: Config, world: World) -> tuple[list[Told], bool]:
        now = world.clock.now()
        ids = await _find(storage.journey, wanted, now)
        if not ids and not wanted.is_list:
            raise Problem(_unknown(wanted, config))
        told = [await _told(storage, queue_id, now) for queue_id in ids[: wanted.limit]]
        return [each for each in told if each.events], len(ids) > wanted.limit

    journeys, more = with_storage(config, work)
    if json:
        print_json([row for told in journeys for row in _rows(told)])
    elif journeys:
        _print(journeys, wanted, more=more, dialogues=transcript)
    else:
        print(_nothing(wanted))


def _wanted(
    message: str | None,
    message_id: str | None,
    *,
    to: str | None,
    sender: str | None,
    reply: str | None,
    refused: bool,
    since: str | None,
    limit: int,
) -> Wanted:
    """What the options say. Raises Problem."""
    queue_id = None
    if message is not None and ("@" in message or message.startswith("<")):
        if message_id is not None:
            raise Problem("that is two Message-IDs; give one: posthouse journey '<…@…>'")
        message_id = message
    elif message is not None:
        queue_id = _queue_id(message)
        if refused or any(each is not None for each in (message_id, to, sender, reply, since)):
            raise Problem(f"an id names one journey, without further options: posthouse journey {queue_id}")
    if not refused and all(each is None for each in (queue_id, message_id, to, sender, reply, since)):
        raise Problem(f"say which message: {_WAYS}")
    for option, value in (("--to", to), ("--from", sender), ("--message-id", message_id)):
        if value is not None and not value.strip("<> "):
            raise Problem(f"{option} is empty; say which message: {_WAYS}")
    if reply is not None and not words_of(reply):
        raise Problem("--reply holds no word; give some of what the other server said: --reply 'mailbox full'")
    if not 1 <= limit <= MOST_JOURNEYS:
        raise Problem(f"--limit is from 1 to {MOST_JOURNEYS}; look for less: --since 2h")
    return Wanted(
        queue_id=queue_id,
        message_id=message_id,
        reverse_path=_path(sender),
        forward_path=_path(to),
        reply=reply,
        refused=refused,
        since_s=_seconds(since),
        limit=limit,
    )


def _path(text: str | None) -> str | None:
    """Angle brackets are no part of an address."""
    return None if text is None else text.strip().removeprefix("<").removesuffix(">")


def _seconds(text: str | None) -> float | None:
    from posthouse.config_values import parse_duration

    try:
        return None if text is None else parse_duration(text)
    except ValueError as exc:
        raise Problem(f"--since: {exc}") from exc


def _queue_id(text: str) -> str:
    """A queue id, or the beginning of one."""
    spelled = text.strip().upper().translate(_MISREAD)
    # (130 bits hold 128: an id begins with one of eight digits, and a word that somebody looks for mostly does not.)
    if not set(spelled) <= _CROCKFORD or spelled[:1] not in "01234567" or len(spelled) > QUEUE_ID_CHARACTERS:
        raise Problem(
            f"{text!r} is not a queue id, which are the {QUEUE_ID_CHARACTERS} characters in the 250 and in Received; "
            "to look by address: posthouse journey --to ADDRESS"
        )
    if len(spelled) < LEAST_CHARACTERS:
        raise Problem(f"{text!r} is too short; give at least {LEAST_CHARACTERS} characters of the queue id")
    return spelled


async def _find(journey: Journey, wanted: Wanted, now: float) -> tuple[QueueId, ...]:
    """Up to one more than the limit. Raises Problem where the beginning of an id is that of several."""
    if wanted.queue_id is not None:
        ids = await journey.beginning_with(wanted.queue_id, _SHOWN_IDS + 1)
        if len(ids) > 1:
            more = ", …" if len(ids) > _SHOWN_IDS else ""
            raise Problem(
                f"{wanted.queue_id} is the beginning of several: {', '.join(ids[:_SHOWN_IDS])}{more}; "
                f"give more of it: posthouse journey {ids[0]}"
            )
        return ids
    return await journey.find(
        reverse_path=wanted.reverse_path,
        forward_path=wanted.forward_path,
        message_id=wanted.message_id,
        reply=wanted.reply,
        refused=wanted.refused,
        since=None if wanted.since_s is None else now - wanted.since_s,
        limit=wanted.limit + 1,
    )


async def _told(storage: Storage, queue_id: QueueId, now: float) -> Told:
    events = await storage.journey.read(queue_id)
    waiting = await storage.spool.list(limit=MOST_JOURNEYS, queue_id=queue_id)
    holders = await storage.journey.holders(queue_id)
    return Told(events=events, standings=standing(events, waiting, holders, now), relations=related(events), now=now)


def _rows(told: Told) -> list[dict[str, Any]]:
    """An object for each event; the first one also has where the message stands and what belongs to it."""
    rows: list[dict[str, Any]] = [
        {
            "event": kind_of(event),
            **dataclasses.asdict(event),
            "since_last_s": round(line.since_last_s, 3),
            "text": line.text,
            "details": line.details,
        }
        for event, line in zip(told.events, tell(told.events), strict=True)
    ]
    rows[0]["now"] = [dataclasses.asdict(each) for each in told.standings]
    rows[0]["related"] = [dataclasses.asdict(each) for each in told.relations]
    return rows


def _print(journeys: list[Told], wanted: Wanted, *, more: bool, dialogues: bool) -> None:
    width = min(shutil.get_terminal_size().columns, WIDEST) if sys.stdout.isatty() else None
    as_list = len(journeys) > STORIES_AT_ONCE and not dialogues
    for number, told in enumerate(journeys):
        if number:
            print()
        lines = listed(told, width=width) if as_list else story(told, width=width, dialogues=dialogues)
        for line in lines:
            print(printable(line))
    if as_list or more:
        print()
    if more:
        most = min(wanted.limit * 5, MOST_JOURNEYS)
        print(f"Shown are the newest {wanted.limit}. For more: --limit {most}; for fewer: --since 2h, --to, --reply.")
    if as_list:
        print("The story of one: posthouse journey ID (the beginning of the id is enough)")


def _nothing(wanted: Wanted) -> str:
    """A list of nothing is an answer."""
    conditions = [
        f"from {wanted.reverse_path}" if wanted.reverse_path is not None else "",
        f"to {wanted.forward_path}" if wanted.forward_path is not None else "",
        f"answered with {wanted.reply!r}" if wanted.reply is not None else "",
        f"in the last {duration(wanted.since_s)}" if wanted.since_s is not None else "",
    ]
    rest = "".join(f" {condition}" for condition in conditions if condition)
    return printable(f"No mail{rest} was refused." if wanted.refused else f"No journey is known of mail{rest}.")


def _unknown(wanted: Wanted, config: Config) -> str:
    kept = f"journeys are kept for {duration(config.journey.keep)}"
    if wanted.queue_id is not None:
        which = "" if len(wanted.queue_id) == QUEUE_ID_CHARACTERS else " that begins with"
        return (
            f"no journey is known of{which} {wanted.queue_id} ({kept}); look by address: posthouse journey --to ADDRESS"
        )
    name = printable(wanted.message_id)
    address = (wanted.message_id or "").strip().strip("<>")
    return (
        f"no message is known with the Message-ID {name} ({kept}); to look by address: posthouse journey --to {address}"
    )
