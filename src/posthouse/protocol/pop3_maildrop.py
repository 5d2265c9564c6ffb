"""A maildrop as one session sees it: numbers that never shift, and deletion marks (RFC 1939 §4, §5)."""

from __future__ import annotations

from collections.abc import Iterator

from posthouse.mail.maildrop import Listing
from posthouse.protocol.pop3 import parse_number
from posthouse.protocol.pop3_arguments import Refusal


class MarkedMaildrop:
    """A listing whose message `n` stands at place `n - 1`, and which of them DELE has marked."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._marked: set[int] = set()
        self.octets = 0
        self.reset()

    def __len__(self) -> int:
        """How many are not marked."""
        return len(self._listing) - len(self._marked)

    @property
    def marked(self) -> tuple[int, ...]:
        """What QUIT will delete."""
        return tuple(sorted(self._marked))

    def mark(self, number: int) -> None:
        """Mark a message that `number()` found."""
        self._marked.add(number)
        self.octets -= self.size_octets(number)

    def reset(self) -> None:
        """Take all marks back."""
        self._marked.clear()
        self.octets = sum(self._listing.sizes_octets)

    def size_octets(self, number: int) -> int:
        """What RETR will send of this message."""
        return self._listing.sizes_octets[number - 1]

    def uidl(self, number: int) -> str:
        """Its unique id."""
        return self._listing.uidls[number - 1]

    def numbers(self) -> Iterator[int]:
        """Those that are not marked."""
        return (n for n in range(1, len(self._listing) + 1) if n not in self._marked)

    def optional_number(self, argument: bytes | None) -> int | None:
        """As `number()`, None where there is no argument."""
        return self.number(argument) if argument and argument.strip(b" ") else None

    def number(self, argument: bytes | None) -> int:
        """The number of a message that is there and not marked. Raises Refusal."""
        number = parse_number((argument or b"").rstrip(b" "))
        if number is None:
            raise Refusal("That is not a message number")
        if not 1 <= number <= len(self._listing):
            raise Refusal(f"No such message, the maildrop holds {len(self._listing)}")
        if number in self._marked:
            raise Refusal(f"Message {number} is already deleted")
        return number

    def number_and_lines(self, argument: bytes | None) -> tuple[int, int]:
        """The arguments of TOP. Raises Refusal."""
        number, _, lines_octets = (argument or b"").rstrip(b" ").partition(b" ")
        lines = parse_number(lines_octets)
        if lines is None:
            raise Refusal("TOP wants a message number and a number of lines")
        return self.number(number), lines
