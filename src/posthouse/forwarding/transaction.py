"""One message at one host: whether the host can take it, what it is asked, what its replies mean for each recipient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from posthouse.mail.outcome import Deferred, Delivered, Failed, Outcome
from posthouse.mail.pressure import asks_to_slow_down, is_about_address
from posthouse.mail.reply import Reply, reply
from posthouse.mail.spool import SpoolMessage, SpoolRow
from posthouse.protocol.smtp_client import ClientRecipient, ClientTransaction, TransactionEnded

MAY_HAVE_ARRIVED = reply(451, "4.4.2", "The connection was lost after the final dot; the message may have arrived")
OWNER_DECIDES = reply(
    451,
    "4.4.2",
    "The connection was lost after the final dot; the message may have arrived. It is not sent again by itself: "
    "posthouse queue release sends it again, posthouse queue remove leaves it",
)
"""For what an identity sends through its own server: nobody may get it twice without its owner's word."""
NOT_ANSWERED = reply(451, "4.4.2", "The connection was lost before the other server answered")
NOT_ASKED = reply(451, "4.4.2", "The connection was lost at EHLO, and HELO does not say whether it takes this message")
CANNOT_TAKE_8BIT = reply(554, "5.6.3", "The next hop takes no 8-bit content, and converting it would break signatures")
CANNOT_TAKE_UTF8 = reply(553, "5.6.7", "The next hop takes no internationalised addresses")
CONTENT_UNFIT = reply(554, "5.6.0", "The content has a line end that is not CR LF, which no server may be sent")
TOO_LARGE = reply(552, "5.3.4", "The message is larger than the next hop takes")

OUR_SIDE = reply(451, "4.3.0", "The attempt failed on our side")

RECIPIENTS_LIMIT = 100
"""Each host takes so many in one transaction (RFC 5321 §4.5.3.1.8); some take no more."""


def needs_utf8(message: SpoolMessage, rows: Sequence[SpoolRow]) -> bool:
    """Whether only a host with SMTPUTF8 can take it: an address or the header section has UTF-8 (RFC 6531 §3.3).

    A client that asked for SMTPUTF8 and did not need it does not make its mail undeliverable; domains are A-labels.
    """
    reverse_path = rows[0].reverse_path
    return (
        (message.smtputf8 and message.facts.eight_bit_header)
        or not all(row.forward_path.is_ascii for row in rows)
        or not (reverse_path is None or reverse_path.is_ascii)
    )


def unsuitable(message: SpoolMessage, rows: Sequence[SpoolRow], extensions: Mapping[str, str]) -> Reply | None:
    """Why this message cannot go to a host with these extensions."""
    if needs_utf8(message, rows) and "SMTPUTF8" not in extensions:
        return CANNOT_TAKE_UTF8
    if _is_eight_bit(message) and "8BITMIME" not in extensions:
        return CANNOT_TAKE_8BIT
    limit = extensions.get("SIZE", "")
    if limit.isascii() and limit.isdigit() and len(limit) <= 20 and 0 < int(limit) < _size_octets(message):
        return TOO_LARGE
    return None


def transaction(rows: Sequence[SpoolRow]) -> ClientTransaction:
    """What is said to hand over one message to these recipients."""
    message = rows[0].message
    return ClientTransaction(
        reverse_path=rows[0].reverse_path,
        recipients=tuple(
            ClientRecipient(forward_path=row.forward_path, notify=row.notify, original_recipient=row.original_recipient)
            for row in rows
        ),
        size_octets=_size_octets(message),
        body="8BITMIME" if _is_eight_bit(message) else "7BIT",
        smtputf8=needs_utf8(message, rows),
        ret=message.ret,
        envelope_id=message.envelope_id,
    )


def _size_octets(message: SpoolMessage) -> int:
    return len(message.prefix) + message.content_octets


def _is_eight_bit(message: SpoolMessage) -> bool:
    return message.facts.eight_bit_body or message.facts.eight_bit_header


def outcome_of(ended: TransactionEnded, index: int) -> Outcome:
    """One recipient's outcome: the first reply that was not positive decides, else the one to the final dot."""
    if not ended.mail.is_positive:
        return by_reply(ended.mail)
    answer = ended.recipients[index]
    if answer is None:
        return Deferred(NOT_ANSWERED, from_peer=False)
    if not answer.is_positive:
        return _refused(answer)
    if ended.final is not None:
        return by_reply(ended.final)
    if ended.data is None:
        return Deferred(NOT_ANSWERED, from_peer=False)
    # A 2yz to DATA promises nothing: the content was never sent.
    return Failed(ended.data) if ended.data.is_permanent else Deferred(ended.data)


def refused_recipients(answers: Sequence[Reply | None]) -> dict[int, Outcome]:
    """Those whose outcome is known by their own reply, whatever became of the content."""
    return {
        index: _refused(answer) for index, answer in enumerate(answers) if answer is not None and not answer.is_positive
    }


def _refused(answer: Reply) -> Outcome:
    # 552: an old way to say "too many recipients" (RFC 5321 §4.5.3.1.10).
    return Deferred(answer) if answer.code == 552 else by_reply(answer)


def by_reply(answer: Reply, *, from_peer: bool = True) -> Outcome:
    """What a reply that decides means."""
    if answer.is_positive:
        return Delivered(answer)
    return Failed(answer, from_peer) if answer.is_permanent else Deferred(answer, from_peer)


def were_too_many(ended: TransactionEnded) -> frozenset[int]:
    """The recipients that the host takes in another transaction at once: it took some, and said "too many" to these.

    452 or 552 (RFC 5321 §4.5.3.1.10), unless the enhanced code says that it is about this one's mailbox. Those beyond
    the limit that it announced (RFC 9422) were not even asked.
    """
    if ended.final is None or not ended.final.is_positive:
        return frozenset()
    return frozenset(
        index
        for index, answer in enumerate(ended.recipients)
        if answer is None or (answer.code in (452, 552) and not is_about_address(answer))
    )


def said_421(ended: TransactionEnded) -> bool:
    """Whether the host announced that it closes."""
    return any(answer is not None and answer.code == 421 for answer in _replies(ended))


def pressure(ended: TransactionEnded) -> Reply | None:
    """What the host said that asks for fewer connections: 421, or 45z that is about us and not about one mailbox."""
    for answer in _replies(ended):
        if answer is not None and answer.code == 421:
            return answer
    if asks_to_slow_down(ended.mail):
        return ended.mail
    answers = [answer for answer in ended.recipients if answer is not None]
    if answers and all(asks_to_slow_down(answer, of_one=len(answers) == 1) for answer in answers):
        return answers[0]
    return None


def _replies(ended: TransactionEnded) -> tuple[Reply | None, ...]:
    return (ended.mail, *ended.recipients, ended.data, ended.final)
