"""One chunk of a content file is read ahead, never more, and nothing is left behind when the reader goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from posthouse.storage.errors import StorageDamaged
from posthouse.storage.filesystem import RealFileSystem
from posthouse.storage.sqlite.content import CHUNK_OCTETS, SqliteContent
from posthouse.storage.sqlite.threads import Readers

OCTETS = bytes(range(256)) * (5 * CHUNK_OCTETS // 256)


class Counting(RealFileSystem):
    """Knows which offsets were read."""

    def __init__(self) -> None:
        self.offsets: list[int] = []

    def read(self, path: Path, offset: int, limit: int) -> bytes:
        self.offsets.append(offset)
        return super().read(path, offset, limit)


@pytest.fixture
def disk() -> Counting:
    return Counting()


@pytest.fixture
async def content(tmp_path: Path, disk: Counting) -> AsyncIterator[SqliteContent]:
    (tmp_path / "database").touch()
    (tmp_path / "aa").mkdir()
    (tmp_path / "aa" / "file").write_bytes(OCTETS)
    readers = Readers(tmp_path / "database", vfs=None, threaded=False)
    yield SqliteContent(tmp_path, "me", disk, readers)
    await readers.close()


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_next_chunk_is_read_while_one_is_sent(content: SqliteContent, disk: Counting) -> None:
    chunks = content.file_chunks("aa/file", len(OCTETS))
    got = b""
    for number in range(5):
        got += await anext(chunks)
        await turns()
        assert disk.offsets == [n * CHUNK_OCTETS for n in range(min(number + 2, 5))]
    with pytest.raises(StopAsyncIteration):
        await anext(chunks)
    assert got == OCTETS


async def test_a_reader_that_goes_leaves_nothing(content: SqliteContent) -> None:
    before = asyncio.all_tasks()
    for waits in (False, True):
        chunks = content.file_chunks("aa/file", len(OCTETS))
        await anext(chunks)
        if waits:
            await turns()
        await chunks.aclose()
        await turns()
    assert asyncio.all_tasks() == before


async def test_an_error_of_the_chunk_ahead_comes_in_its_turn(content: SqliteContent, tmp_path: Path) -> None:
    chunks = content.file_chunks("aa/file", len(OCTETS))
    (tmp_path / "aa" / "file").write_bytes(OCTETS[:CHUNK_OCTETS])
    assert await anext(chunks) == OCTETS[:CHUNK_OCTETS]
    with pytest.raises(StorageDamaged, match="too short"):
        await anext(chunks)
    # Nobody comes for the error of the second: it is not told either.
    (tmp_path / "aa" / "file").unlink()
    with pytest.raises(StorageDamaged, match="missing"):
        await anext(content.file_chunks("aa/file", len(OCTETS)))
