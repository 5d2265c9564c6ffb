"""The content of one transaction on its way from the wire into a draft.

After a refusal the rest is read to its end and forgotten: what the peer is told, it is told once, at the end.
"""

from __future__ import annotations

from posthouse.admission import replies
from posthouse.admission.submission import ContentUnacceptable, Missing, Submission
from posthouse.log import Log
from posthouse.mail.content import ContentScanner, HeaderTooLarge, SealedContent
from posthouse.mail.reply import Reply
from posthouse.storage.errors import StorageError, StorageFull
from posthouse.storage.interfaces import Draft


class Intake:
    """Scans, filters what was submitted, and writes the draft. `refusal`: why the message is refused already.

    `beginning`: the first `keep_octets` of what is stored, for a report.
    """

    def __init__(self, draft: Draft, submission: Submission | None, log: Log, *, keep_octets: int = 0) -> None:
        self._draft: Draft | None = draft
        self._submission = submission
        self._scanner = ContentScanner()
        self._log = log
        self.refusal: Reply | None = None
        self.beginning = b""
        self._keep_octets = keep_octets

    @property
    def missing(self) -> Missing | None:
        """The header fields that a submitted message lacks, once it is sealed."""
        return self._submission.missing if self._submission is not None else None

    async def take(self, octets: bytes) -> None:
        """Add a chunk."""
        if self._draft is None:
            return
        try:
            if self._submission is not None:
                octets = await self._submission.feed(octets)
            self._scanner.feed(octets)
            await self._draft.write(octets)
            if self._keep_octets:
                self._keep(octets)
        except (HeaderTooLarge, ContentUnacceptable, StorageError) as exc:
            self.refusal = _refusal(exc)
            await self.discard()

    async def seal(self) -> SealedContent | Reply:
        """No more comes: the content, or why it is refused."""
        if self._draft is not None and self._submission is not None:
            await self._take_last(self._submission)
        if self._draft is None:
            assert self.refusal is not None
            return self.refusal
        try:
            return await self._draft.seal(self._scanner.facts())
        except StorageError as exc:
            return _refusal(exc)

    async def discard(self) -> None:
        """Forget the draft, unless a message has it now. Safe to call more than once."""
        draft, self._draft = self._draft, None
        if draft is None:
            return
        try:
            await draft.discard()
        except StorageError:
            # A file that cannot be removed now has no row: it goes when this incarnation has ended.
            self._log.warning("draft not discarded", exc_info=True)

    def _keep(self, octets: bytes) -> None:
        self.beginning += octets[: self._keep_octets - len(self.beginning)]

    async def _take_last(self, submission: Submission) -> None:
        """What the submission held back for want of an empty line."""
        assert self._draft is not None
        try:
            rest = await submission.finish()
            self._scanner.feed(rest)
            await self._draft.write(rest)
            self._keep(rest)
        except (HeaderTooLarge, ContentUnacceptable, StorageError) as exc:
            self.refusal = _refusal(exc)
            await self.discard()


def not_stored(exc: StorageError) -> Reply:
    """What the peer is told about a failure of storage: always transient, never its text."""
    return replies.STORAGE_FULL if isinstance(exc, StorageFull) else replies.STORAGE_BUSY


def _refusal(exc: HeaderTooLarge | ContentUnacceptable | StorageError) -> Reply:
    match exc:
        case HeaderTooLarge():
            return replies.HEADER_TOO_LARGE
        case ContentUnacceptable(reply=answer):
            return answer
        case _:
            return not_stored(exc)
