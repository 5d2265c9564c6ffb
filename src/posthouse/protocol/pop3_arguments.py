"""Arguments of commands, as the server half takes them."""

from __future__ import annotations

from posthouse.protocol.pop3 import has_control


class Refusal(Exception):
    """A command that the core answers `-ERR`; the argument is its text."""


def no_argument(argument: bytes | None) -> None:
    """Raise Refusal where there is one. Trailing spaces are forgiven: some clients send them."""
    if argument and argument.strip(b" "):
        raise Refusal("This command takes no argument")


def text_argument(octets: bytes) -> str:
    """A name or a password, or Refusal. UTF-8 is taken even without RFC 6856: ASCII is the same in both."""
    if not octets:
        raise Refusal("An argument is missing")
    if has_control(octets):
        raise Refusal("The argument holds a control character")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal("The argument is not UTF-8") from None
