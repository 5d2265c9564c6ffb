"""A bar for long work, on a terminal only; elsewhere nothing is written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from posthouse.storage.upkeep import Progress, Tell, tell_nobody


@contextmanager
def progress_shown() -> Iterator[Tell]:
    """What to tell progress to. The bar goes to standard error and is gone when the work is done."""
    if not sys.stderr.isatty():
        yield tell_nobody
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=None)

        def tell(progress: Progress) -> None:
            bars.update(task, description=progress.step, completed=progress.done, total=progress.total or None)

        yield tell
