"""Scratch folders: each dbt command has one for its files, and none is left for ever.

Whoever uses a folder holds a lock on it, which the kernel lets go however that process ends. What a
killed task has left is so known to be nobody's, and the next command removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from include.transform.warm_dbt import NoWarmDbt, require_private

PREFIX = "sluice-dbt-"


@contextmanager
def scratch(runtime: Path) -> Iterator[Path]:
    """A folder for one command's files, which goes away with the block.

    Args:
        runtime: Where to make it. Where that is not this user's alone, it is made among the
            temporary files of all.
    """
    parent = Path(tempfile.gettempdir())
    with suppress(NoWarmDbt, OSError):
        require_private(runtime)
        parent = runtime
    folder, lock = _made(parent)
    try:
        _remove_left(parent)
        yield folder
    finally:
        # A command that is being cancelled may write on; what it makes anew is the next one's work.
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _made(parent: Path) -> tuple[Path, int]:
    """A new folder, and the lock on it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        with suppress(FileNotFoundError):  # it was removed as nobody's before it was locked
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _remove_left(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # it is in use, or another user's, or another removes it
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)
