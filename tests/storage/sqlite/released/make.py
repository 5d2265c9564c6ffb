"""Keeps what a version left: `python make.py COMMIT` writes schema-N.tar.xz, N being the schema of that commit.

In it: `posthouse/`, of that version's source as much as opens a store, and `house/`, a store that it made. A schema is
added here with the first commit of the next one.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
THEN = HERE.parent / "then.py"
PARTS = ("src/posthouse/__init__.py", "src/posthouse/mail", "src/posthouse/storage")


def main(commit: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = subprocess.run(
            ["git", "archive", commit, *PARTS], cwd=HERE.parents[3], capture_output=True, check=True
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as source:
            # (Debian 12's Python has no filters yet.)
            source.extraction_filter = getattr(tarfile, "data_filter", lambda member, _path: member)
            source.extractall(folder)
        environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run([sys.executable, THEN, "furnish", folder / "house"], env=environment, check=True)
        numbers = sorted(path.name[:4] for path in (folder / "src/posthouse/storage/sqlite/migrations").glob("*.sql"))
        target = HERE / f"schema-{int(numbers[-1])}.tar.xz"
        with tarfile.open(target, "w:xz", preset=9) as packed:
            for inside, path in (("posthouse", folder / "src" / "posthouse"), ("house", folder / "house")):
                packed.add(path, inside, filter=_nobodys)
        print(f"{target}: {target.stat().st_size} octets")


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Without what belongs to whoever made it."""
    if member.name.endswith((".pyc", "__pycache__", "-wal", "-shm", ".lock")):
        return None
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main(sys.argv[1])
