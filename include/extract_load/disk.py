"""What a disk refuses, as it is full or read-only: one line says where, why and what to do."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import fsspec

from include.errors import ConfigError, OutsideError, one_line


def file_system(setting: str, root: str) -> tuple[Any, str]:
    """The file system of a root that a variable names, and the path there.

    Args:
        setting: The variable's name, for the message.
        root: A path or an fsspec URL.

    Raises:
        ConfigError: No such protocol is known, or its package is not in this environment.
    """
    try:
        files, path = fsspec.core.url_to_fs(root)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{setting}={root!r}: it cannot be used from {sys.prefix}: {one_line(error)}"
        ) from None
    return files, str(path)


def run_folder(run_id: str) -> str:
    """What a run's folder is called: one name, which leads to no other folder.

    >>> run_folder("manual__2026-01-01T00:00:00+00:00"), run_folder("..")
    ('manual__2026-01-01T00_00_00+00_00', '_.')
    """
    return re.sub(r"^\.|[^\w.+-]", "_", run_id)


@contextmanager
def disk_errors(
    place: object, error: type[OutsideError], refused: type[Exception] = OSError
) -> Iterator[None]:
    """Around what is written to a place, or read from it.

    Args:
        place: Its name, for the message.
        error: What is raised: the step's own.
        refused: What it is raised for.

    Raises:
        OutsideError: The disk refused it.
    """
    try:
        yield
    except refused as found:
        why = one_line(getattr(found, "strerror", None) or found)
        raise error(
            f"{place}: {why}; see to its room and permissions, then do the run again"
        ) from None


@contextmanager
def temporary_folder(error: type[OutsideError]) -> Iterator[Path]:
    """A folder of this machine, removed at the end.

    Args:
        error: What is raised where there can be none.

    Raises:
        OutsideError: The disk refused it.
    """
    with ExitStack() as stack:
        with disk_errors("the temporary folder", error):
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-"))
        yield Path(name)
