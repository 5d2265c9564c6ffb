"""The octets of messages: small content as a BLOB beside its row, large content in a file of its own.

A draft gathers in memory until it is LARGE, or until all drafts together exceed the budget; then it goes on in a
file, created exclusively at its final name and synced, with its folder, by `seal`: before any row can name it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import apsw

from posthouse.mail.content import ContentFacts, SealedContent
from posthouse.mail.ids import ContentId
from posthouse.storage.errors import StorageDamaged
from posthouse.storage.filesystem import FileSystem
from posthouse.storage.observer import Nobody, Observer
from posthouse.storage.sqlite.connection import row
from posthouse.storage.sqlite.errors import storage_errors
from posthouse.storage.sqlite.threads import Readers

LARGE_OCTETS = 128 * 1024
BUDGET_OCTETS = 64 * 1024 * 1024
CHUNK_OCTETS = 64 * 1024


class SqliteDraft:
    """Content being written. One session uses it; `handle` names it once it is sealed."""

    def __init__(self, store: SqliteContent, handle: str) -> None:
        self._store = store
        self.handle = handle
        self.file: str | None = None
        self.in_accept = 0
        self.unwanted = False
        self._descriptor: int | None = None
        # One buffer: pieces of two octets each, kept one by one, would take thirty times what the budget counts.
        self._waiting = bytearray()
        self._size_octets = 0
        self._sha256 = hashlib.sha256()

    @property
    def size_octets(self) -> int:
        return self._size_octets

    @property
    def octets(self) -> bytes:
        """All of it, of a draft that is not in a file."""
        return bytes(self._waiting)

    async def write(self, octets: bytes) -> None:
        self._sha256.update(octets)
        self._size_octets += len(octets)
        self._waiting += octets
        self._store.waiting_octets += len(octets)
        if len(self._waiting) >= LARGE_OCTETS or self._store.waiting_octets > self._store.budget_octets:
            await self._flush()

    async def seal(self, facts: ContentFacts) -> SealedContent:
        if self.file is not None:
            await self._flush()
            await self._store.readers.disk(self._sync)
        return SealedContent(
            handle=self.handle, size_octets=self._size_octets, sha256=self._sha256.digest(), facts=facts
        )

    async def discard(self) -> None:
        if self.in_accept:
            # The commit under way decides: `accepted` finishes what is left to do.
            self.unwanted = True
            return
        if self._store.forget(self):
            await self._store.readers.disk(self.remove)

    async def _flush(self) -> None:
        """Move what waits in memory to the file."""
        octets = bytes(self._waiting)
        self.release()
        if self.file is None:
            self.file = await self._store.readers.disk(self._create)
        await self._store.readers.disk(lambda: self._append(octets))

    def release(self) -> None:
        """Give back the memory."""
        self._store.waiting_octets -= len(self._waiting)
        self._waiting.clear()

    def remove(self) -> None:
        """Close and remove the file, if there is one."""
        self.close()
        if self.file is not None:
            self._store.file_system.remove(self._store.folder / self.file)

    def _create(self) -> str:
        name = self._store.new_file_name()
        path = self._store.folder / name
        if not self._store.has_folder(path.parent):
            self._store.file_system.make_folder(path.parent)
            self._store.file_system.sync_folder(self._store.folder)
            self._store.note_folder(path.parent)
        try:
            self._descriptor = self._store.file_system.create(path)
        except BaseException:
            self._store.note_unused(name)
            raise
        return name

    def _append(self, octets: bytes) -> None:
        assert self._descriptor is not None, "written after it was sealed"
        self._store.file_system.write(self._descriptor, octets)

    def _sync(self) -> None:
        if self._descriptor is None or self.file is None:
            return
        began = time.perf_counter()
        self._store.file_system.sync(self._descriptor)
        self._store.observer.content_synced(time.perf_counter() - began)
        self.close()
        self._store.file_system.sync_folder((self._store.folder / self.file).parent)

    def close(self) -> None:
        """Close the file's descriptor, if one is open."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            self._store.file_system.close(descriptor)


class SqliteContent:
    """Drafts that no row names yet, and reading of content that a row names."""

    def __init__(self, folder: Path, incarnation: str, file_system: FileSystem, readers: Readers) -> None:
        self.folder = folder
        self.file_system = file_system
        self.readers = readers
        self.waiting_octets = 0
        self.budget_octets = BUDGET_OCTETS
        self.observer: Observer = Nobody()
        self._incarnation = incarnation
        self._counter = 0
        self._files = 0
        self._folders: set[Path] = set()
        self._in_use: set[str] = set()
        self._drafts: dict[str, SqliteDraft] = {}

    async def draft(self) -> SqliteDraft:
        self._counter += 1
        draft = SqliteDraft(self, f"{self._incarnation}-{self._counter}")
        self._drafts[draft.handle] = draft
        return draft

    async def open(self, content_id: ContentId) -> AsyncGenerator[bytes, None]:
        def find(connection: apsw.Connection) -> tuple[int, str | None, bytes | None] | None:
            found: tuple[int, str | None, bytes | None] | None = row(
                connection, "SELECT size_octets, file, octets FROM contents WHERE content = ?", (content_id,)
            )
            return found

        found = await self.readers.query(find)
        if found is None:
            raise KeyError(content_id)
        size_octets, file, octets = found
        if file is None:
            for chunk in chunks(octets or b""):
                yield chunk
            return
        async for chunk in self.file_chunks(file, size_octets):
            yield chunk

    async def file_chunks(self, file: str, size_octets: int) -> AsyncGenerator[bytes, None]:
        """A content file in chunks. Raises StorageDamaged when it is missing or too short.

        One chunk is read ahead while the one before is sent: the disk works while the peer does.
        """
        path = self.folder / file
        offset = 0
        ahead = self._read_soon(path, 0, size_octets)
        try:
            while offset < size_octets:
                with storage_errors():
                    chunk = await ahead
                if not chunk:
                    raise StorageDamaged(f"{path}: the content file is too short; restore it from a backup")
                offset += len(chunk)
                if offset < size_octets:
                    ahead = self._read_soon(path, offset, size_octets)
                yield chunk
        finally:
            if not ahead.done():
                ahead.cancel()
            elif not ahead.cancelled():
                # Nobody came for it: then nobody is told of its error either.
                ahead.exception()

    def _read_soon(self, path: Path, offset: int, size_octets: int) -> asyncio.Future[bytes]:
        limit = min(CHUNK_OCTETS, size_octets - offset)
        return self.readers.begin(self._reader(path, offset, limit))

    def _reader(self, path: Path, offset: int, limit: int) -> Callable[[], bytes]:
        def read() -> bytes:
            try:
                return self.file_system.read(path, offset, limit)
            except FileNotFoundError as exc:
                raise StorageDamaged(f"{path}: the content file is missing; restore it from a backup") from exc

        return read

    def find(self, handle: str) -> SqliteDraft | None:
        """The sealed draft of that name, unless it was taken or discarded."""
        return self._drafts.get(handle)

    def forget(self, draft: SqliteDraft) -> bool:
        """No longer ours to remove; False when it was not before."""
        known = self._drafts.pop(draft.handle, None) is not None
        if known:
            draft.release()
            if draft.file is not None:
                self._in_use.discard(draft.file)
        return known

    def names_in_use(self) -> frozenset[str]:
        """The files of drafts; one is in it before it is made, and until its row is committed or it is given up."""
        return frozenset(self._in_use)

    def note_unused(self, name: str) -> None:
        """The file could not be made."""
        self._in_use.discard(name)

    def begin_accept(self, drafts: list[SqliteDraft]) -> None:
        for draft in drafts:
            draft.in_accept += 1

    def end_accept(self, drafts: list[SqliteDraft], taken: frozenset[str]) -> None:
        """The commit is decided: content that it took is a row's now; what was discarded meanwhile goes."""
        for draft in drafts:
            draft.in_accept -= 1
            if draft.handle in taken:
                self.forget(draft)
            elif draft.unwanted and not draft.in_accept and self.forget(draft):
                try:
                    draft.remove()
                except OSError:
                    # It stays behind without a row until our incarnation has ended.
                    continue

    def new_file_name(self) -> str:
        self._files += 1
        name = f"{self._files & 0xFF:02x}/{self._incarnation}-{self._files}"
        self._in_use.add(name)
        return name

    def has_folder(self, folder: Path) -> bool:
        """Whether the folder is known to be there, durably."""
        return folder in self._folders

    def note_folder(self, folder: Path) -> None:
        """The folder was made and its name synced."""
        self._folders.add(folder)

    def remove_drafts(self) -> None:
        """At the end: nobody will accept them any more."""
        for draft in list(self._drafts.values()):
            self.forget(draft)
            draft.remove()

    def abandon(self) -> None:
        """Close the descriptors, as the end of a process does, and leave the files."""
        for draft in self._drafts.values():
            draft.close()


def chunks(octets: bytes) -> list[bytes]:
    """Cut into pieces of at most CHUNK_OCTETS."""
    if len(octets) <= CHUNK_OCTETS:
        return [octets] if octets else []
    return [octets[start : start + CHUNK_OCTETS] for start in range(0, len(octets), CHUNK_OCTETS)]
