"""Columns whose values are not for logs: those that some source file masks."""

from __future__ import annotations

from pathlib import Path

from include.extract_load.source import load_source


def masked_columns(sources: Path) -> frozenset[str]:
    """Names, in lower case, of the columns that are masked in any stream.

    Args:
        sources: The folder of the source files.

    Raises:
        SourceFileError: One of them cannot be used.
    """
    files = (load_source(path) for path in sorted(sources.glob("*.yml")))
    return frozenset(
        column.lower() for source in files for s in source.streams for column in s.masks
    )
