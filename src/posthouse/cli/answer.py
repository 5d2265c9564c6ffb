"""`posthouse send --reply ID`: the message that is answered, and who answers as what."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from posthouse.cli.common import Problem
from posthouse.cli.editor import Written
from posthouse.cli.letters import Reader, find_letter, find_reader, refresh
from posthouse.cli.writer import Writer, find_writer
from posthouse.mail.answer import Answer, answer_to
from posthouse.mail.folders import ANSWERED, SEEN
from posthouse.mail.indexed import Listed
from posthouse.mail.mime import MimeReader

if TYPE_CHECKING:
    from posthouse.mail.address import Address
    from posthouse.storage.interfaces import Storage


@dataclasses.dataclass(frozen=True, slots=True)
class Answered:
    """What is answered: where it is, and what the answer begins with."""

    reader: Reader
    letter: Listed
    answer: Answer

    def begun(self, given: Written, *, quoted: bool) -> Written:
        """What was given on the command line, completed. `quoted`: with the text that is answered."""
        answer = self.answer
        return dataclasses.replace(
            given,
            to=(*answer.to, *given.to),
            cc=(*answer.cc, *given.cc),
            subject=given.subject or answer.subject,
            text=f"{given.text}\n\n{answer.quoted}" if quoted else given.text,
        )

    async def note(self, storage: Storage) -> None:
        """The message was answered. It may have moved since it was looked at."""
        for each in await storage.reading.named(self.reader.account, self.letter.queue_id, 10):
            if each.copy == self.letter.copy:
                await storage.folders.flag(self.reader.account, each.folder, [each.uid], add=[ANSWERED, SEEN])


async def find_answered(
    storage: Storage, wanted: str, author: str | None, *, everyone: bool
) -> tuple[Answered, Writer]:
    """The message with that id, and who answers: as the address that it came to, unless another is given."""
    from posthouse.indexing import read_message

    login = (await find_writer(storage, author)).account.login if author is not None else None
    reader = await find_reader(storage, login, "--from")
    await refresh(storage, reader)
    letter = await find_letter(storage, reader, wanted)
    own = {address.key for address in await storage.directory.identities(reader.account)}

    def is_own(address: Address) -> bool:
        # (An address without a local part is all of its domain.)
        return address.key in own or f"@{address.domain}" in own

    try:
        message = await read_message(storage, reader.account, letter.folder, letter.uid, MimeReader())
    except KeyError as exc:
        raise Problem("this message was moved or deleted just now; see: posthouse read") from exc
    written = time.strftime("%A, %Y-%m-%d %H:%M", time.localtime(letter.date))
    answer = answer_to(message, is_own, everyone=everyone, written=written)
    if author is None and answer.addressed:
        author = str(answer.addressed[0])
    return Answered(reader, letter, answer), await find_writer(storage, author)
