"""What git holds of a folder at a revision."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from include.errors import LocalError, one_line


def git(folder: Path, *arguments: str) -> bytes:
    """What a git command in a folder writes.

    Raises:
        LocalError: It failed, with what it said.
    """
    line = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(line, capture_output=True, check=False)
    if done.returncode:
        why = one_line(done.stderr.decode(errors="replace"))
        raise LocalError(f"git {arguments[0]}: {why}")
    return done.stdout


def extract(folder: Path, revision: str, out: Path) -> None:
    """Write a folder's files, as they are at a revision, to another folder.

    Args:
        folder: A folder in a git repository.
        revision: A branch, a tag or a commit.
        out: The folder that is made.

    Raises:
        LocalError: There is no such revision, or nothing of the folder in it.
    """
    packed = git(folder, "archive", "--format=tar", revision)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(out, filter="data")
