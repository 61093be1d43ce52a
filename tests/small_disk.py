"""A disk of a test's own, which can be full or read-only."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager

import pytest

NO_ROOM, READ_ONLY = "No space left on device", "Read-only file system"


class SmallDisk:
    """What is mounted as a folder.

    Args:
        folder: The folder.
    """

    def __init__(self, folder):
        self.folder = folder
        self._filling = folder / "filling"

    def remount(self, options):
        subprocess.run(["mount", "-o", f"remount,{options}", self.folder], check=True)

    def fill(self):
        with self._filling.open("wb", buffering=0) as file:
            with pytest.raises(OSError, match=NO_ROOM):
                while True:
                    file.write(bytes(4096))

    def make_room(self):
        self._filling.unlink()


@contextmanager
def small_disk(folder, options):
    """Mount one; the test is skipped where that may not be."""
    folder.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    if os.geteuid() or subprocess.run(line, capture_output=True).returncode:
        pytest.skip("a small disk can be mounted by root only")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
