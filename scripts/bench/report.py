"""What a benchmark says while it measures."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """Write a line to standard output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
