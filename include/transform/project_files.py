"""The files of a dbt project, but for what dbt itself writes there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

WRITTEN = {"target", "logs", ".git", "__pycache__"}


def project_files(root: Path) -> Iterator[str]:
    """The path of each file below a folder, in any order."""
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in WRITTEN]
        for name in files:
            yield os.path.join(folder, name)  # noqa: PTH118  (10 ms for 1,000 files, not 30)
