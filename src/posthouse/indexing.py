"""Reading messages for what they are found by: a house that serves does it now and then, `posthouse read` at once."""

from __future__ import annotations

import asyncio

from posthouse.log import Log
from posthouse.mail.found_by import FoundBy, found_by
from posthouse.mail.ids import AccountId, Uid
from posthouse.mail.indexed import Missing
from posthouse.mail.mime import Message, MimeReader
from posthouse.storage.errors import StorageDamaged, StorageError
from posthouse.storage.interfaces import Storage
from posthouse.storage.upkeep import Progress, Tell, tell_nobody

STEP = 100
"""Messages in one transaction: a few ms each of the processor, outside of it."""
SMALL_STEP = 20
"""The same beside other work."""
LOOK_EVERY_S = 20.0
PAUSE_S = 0.2
"""Between two steps of a house that has mail to move."""


async def read_message(storage: Storage, account: AccountId, folder: str, uid: Uid, reader: MimeReader) -> Message:
    """Whole messages go through, whatever their size. Raises KeyError when it is gone."""
    async for chunk in storage.maildrops.read(account, uid, folder):
        reader.feed(chunk)
    return reader.finish()


async def bring_up_to_date(storage: Storage, account: AccountId, tell: Tell = tell_nobody) -> int:
    """Index all that is missing; how many messages."""
    total = await storage.reading.missing_count(account)
    done = 0
    while step := await index_step(storage, account, STEP):
        done += step
        tell(Progress("reading new mail", done, max(done, total)))
    await storage.reading.tidy(account)
    return done


async def index_step(storage: Storage, account: AccountId, limit: int) -> int:
    """Index up to `limit` messages; how many were looked at."""
    missing = await storage.reading.missing(account, limit)
    if missing:
        found = [(each, None if each.is_known else await _look(storage, account, each)) for each in missing]
        await storage.reading.add(account, found)
    return len(missing)


async def _look(storage: Storage, account: AccountId, missing: Missing) -> FoundBy | None:
    """What it is found by; None: it is gone. Of one that cannot be read, nothing but that it is there."""
    nothing = MimeReader().finish()
    try:
        message = await read_message(storage, account, missing.folder, missing.uid, MimeReader())
        return await asyncio.to_thread(found_by, message, missing.accepted_at)
    except KeyError:
        return None
    except StorageDamaged:
        return found_by(nothing, missing.accepted_at)
    except (StorageError, OSError):
        raise
    except Exception:  # noqa: BLE001  (a message that no reader was made for is listed all the same, and ends nothing)
        return found_by(nothing, missing.accepted_at)


class IndexRunner:
    """Keeps the index of the accounts that are read here filled, in a house that runs. Runs until it is cancelled."""

    def __init__(self, storage: Storage, log: Log) -> None:
        self._storage = storage
        self._log = log

    async def run(self) -> None:
        while True:
            try:
                for account in await self._storage.reading.accounts():
                    await self._fill(account)
                await self._storage.reading.forget_removed()
            except StorageError as exc:
                self._log.warning("mail cannot be indexed", reason=str(exc))
            await asyncio.sleep(LOOK_EVERY_S)

    async def _fill(self, account: AccountId) -> None:
        looked_at = SMALL_STEP
        while looked_at == SMALL_STEP:
            looked_at = await index_step(self._storage, account, SMALL_STEP)
            await asyncio.sleep(PAUSE_S)
        await self._storage.reading.tidy(account)
