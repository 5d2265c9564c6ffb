"""The lines of MAIL and RCPT as this peer may be sent them: parameters only of what it offers."""

from __future__ import annotations

from collections.abc import Callable

from posthouse.mail.acceptance import Notify
from posthouse.mail.address import AddressError, ReversePath, parse_domain, path_text
from posthouse.protocol.errors import LocalProtocolError
from posthouse.protocol.smtp_client_events import ClientRecipient, ClientTransaction
from posthouse.protocol.smtp_parameters import MAX_ORIGINAL_RECIPIENT, encode_original_recipient, encode_xtext


def mail_line(transaction: ClientTransaction, extensions: dict[str, str]) -> str:
    """MAIL with its parameters. Raises LocalProtocolError for what must not stand on the line."""
    if transaction.smtputf8 and "SMTPUTF8" not in extensions:
        raise LocalProtocolError("the peer cannot take an internationalised message")
    line = f"MAIL FROM:{_path(transaction.reverse_path, transaction)}"
    if "SIZE" in extensions:
        line += f" SIZE={transaction.size_octets}"
    if "8BITMIME" in extensions and transaction.body != "7BIT":
        line += f" BODY={argument(transaction.body)}"
    if transaction.smtputf8:
        line += " SMTPUTF8"
    if "DSN" in extensions and transaction.ret is not None:
        line += f" RET={transaction.ret}"
    if "DSN" in extensions and transaction.envelope_id is not None:
        line += f" ENVID={_encoded(encode_xtext, transaction.envelope_id)}"
    return line


def recipient_line(recipient: ClientRecipient, transaction: ClientTransaction, extensions: dict[str, str]) -> str:
    """RCPT with its parameters. Raises LocalProtocolError likewise."""
    line = f"RCPT TO:{_path(recipient.forward_path, transaction)}"
    if "DSN" not in extensions:
        return line
    if recipient.notify is not None:
        line += " NOTIFY=" + ",".join(word for word in Notify if word in recipient.notify)
    if recipient.original_recipient is not None:
        encoded = _encoded(encode_original_recipient, recipient.original_recipient)
        # What came in UTF-8 may be longer in ASCII than it may be (RFC 3461 §4.2), and refused for that.
        if len(encoded) <= MAX_ORIGINAL_RECIPIENT:
            line += f" ORCPT={encoded}"
    return line


def hello_name(text: str) -> str:
    """What EHLO may say: a full domain name or an address literal (RFC 5321 §4.1.1.1). Raises LocalProtocolError."""
    argument(text)
    name = text.lower()
    try:
        parse_domain(text)
    except AddressError as exc:
        raise LocalProtocolError("EHLO names neither a domain nor an address literal") from exc
    is_full = "." in name and not name.rpartition(".")[2].isdigit()
    if not name.startswith("[") and (not is_full or name.endswith((".localhost", ".localdomain"))):
        raise LocalProtocolError("EHLO does not name a host that others know")
    return text


def argument(text: str) -> str:
    """The text, which must not end its line."""
    if "\r" in text or "\n" in text or "\0" in text:
        raise LocalProtocolError("an argument holds CR, LF or NUL")
    return text


def _path(path: ReversePath, transaction: ClientTransaction) -> str:
    text = argument(path_text(path))
    if not text.isascii() and not transaction.smtputf8:
        raise LocalProtocolError("an internationalised address needs SMTPUTF8")
    return text


def _encoded(encode: Callable[[str], str], text: str) -> str:
    try:
        return encode(text)
    except ValueError as exc:
        raise LocalProtocolError(str(exc)) from exc
