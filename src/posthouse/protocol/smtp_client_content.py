"""Content on its way out, with dots stuffed (RFC 5321 §4.5.2) or in counted chunks (RFC 3030), and nothing unfit.

Whatever stands in the store, no CR or LF leaves alone, and no dot alone on its line but the last: else a peer that
ends lines where it must not would take a second message out of the first (SMTP smuggling).
"""

from __future__ import annotations

from posthouse.protocol.lines import ContentWriter

CHUNK_OCTETS = 128 * 1024
"""The size of a chunk that is not the last one: large enough that its reply costs nothing, small enough to hold."""


class ContentUnfit(Exception):
    """The content holds a CR or LF alone, which must never leave (RFC 5321 §2.3.8)."""


class LineEnds:
    """Lets through what has each CR before an LF and each LF behind a CR, cut anywhere."""

    def __init__(self) -> None:
        self._held = b""

    def check(self, octets: bytes) -> bytes:
        """What may leave now; a CR at the end waits for its LF. Raises ContentUnfit."""
        if self._held:
            octets = self._held + octets
        self._held = b"\r" if octets.endswith(b"\r") else b""
        if self._held:
            octets = octets[:-1]
        line_ends = octets.count(b"\r\n")
        if octets.count(b"\r") != line_ends or octets.count(b"\n") != line_ends:
            raise ContentUnfit("a CR or LF stands alone in the content")
        return octets

    def finish(self) -> None:
        """The content ends here. Raises ContentUnfit."""
        if self._held:
            raise ContentUnfit("the content ends in a CR")


class DottedContent:
    """Content after DATA."""

    def __init__(self) -> None:
        self._line_ends = LineEnds()
        self._writer = ContentWriter()

    def encode(self, octets: bytes) -> list[tuple[str, bytes]]:
        """What leaves: pairs of what to note and of octets. Raises ContentUnfit."""
        return [("", self._writer.encode(self._line_ends.check(octets)))]

    def finish(self) -> tuple[str, bytes]:
        """The end, likewise."""
        self._line_ends.finish()
        return ".", self._writer.finish()


class ChunkedContent:
    """Content in BDAT chunks, octet for octet as it is. Holds one chunk, so that the last one is not empty."""

    def __init__(self) -> None:
        self._line_ends = LineEnds()
        self._held = bytearray()

    def encode(self, octets: bytes) -> list[tuple[str, bytes]]:
        """The chunks that are full now, each with its command. Raises ContentUnfit."""
        self._held += self._line_ends.check(octets)
        chunks: list[tuple[str, bytes]] = []
        while len(self._held) > CHUNK_OCTETS:
            # Not between CR and LF: a peer that looks at each chunk for itself would see them stand alone.
            size = CHUNK_OCTETS - (self._held[CHUNK_OCTETS - 1] == 0x0D)
            chunks.append(_chunk(f"BDAT {size}", bytes(self._held[:size])))
            del self._held[:size]
        return chunks

    def finish(self) -> tuple[str, bytes]:
        """The last chunk."""
        self._line_ends.finish()
        return _chunk(f"BDAT {len(self._held)} LAST", bytes(self._held))


def _chunk(command: str, octets: bytes) -> tuple[str, bytes]:
    return command, command.encode() + b"\r\n" + octets
