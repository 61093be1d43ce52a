"""Where in a model's file a database's message points to, as well as that can be known.

A message tells a line of the statement that was sent, or the words that the database did not know.
The statement has the model's SQL in it, and that the lines of the file in which no Jinja is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FILE = re.compile(r"^.* \(([^()]+\.\w+)\)\s*$", re.MULTILINE)
LINE = re.compile(r"\b[Ll]ine (\d+)\b")
QUOTED = re.compile(r"'([^'\n]+)'|\"([^\"\n]+)\"")


@dataclass(frozen=True)
class ErrorLine:
    """A line of a model.

    Attributes:
        file: The model's file, in its project.
        number: Its line there; None where Jinja has made it.
        text: What stands in it.
    """

    file: str
    number: int | None
    text: str

    def __str__(self) -> str:
        place = f"{self.file}, line {self.number}" if self.number else f"{self.file}, in the SQL"
        return f"{place}: {self.text}"


def error_line(message: str, compiled: str, sent: str, project: Path) -> ErrorLine | None:
    """The line that a message is of; None where it tells of none.

    Args:
        message: dbt's message.
        compiled: The node's SQL, without Jinja.
        sent: The statement that it was sent in; empty where that is not known.
        project: The folder that the file's path begins in.
    """
    sql = compiled.strip()
    file, index = FILE.search(message), _index(message, sql, sent)
    if not file or index is None:
        return None
    text = sql.splitlines()[index].strip()
    source = project / file[1]
    written = source.read_text().splitlines() if source.is_file() else []
    same = [n for n, line in enumerate(written, 1) if line.strip() == text]
    return ErrorLine(file[1], same[0] if len(same) == 1 else None, text)


def _index(message: str, sql: str, sent: str) -> int | None:
    """Which line of the SQL it is, from 0 on."""
    lines = sql.splitlines()
    words = (one or other for one, other in QUOTED.findall(message))
    found = [n for n in (_lines_with(word, lines) for word in words) if n]
    rarest = min(found, key=len, default=[])
    sent = sent.strip()  # the connector does so, too
    told, start = LINE.search(message), sent.find(sql)
    if told and start >= 0:
        near = int(told[1]) - 1 - sent.count("\n", 0, start)
        rarest = rarest or [n for n in (near,) if 0 <= n < len(lines)]
        return min(rarest, key=lambda n: abs(n - near), default=None)
    return rarest[0] if len(rarest) == 1 else None


def _lines_with(word: str, lines: Sequence[str]) -> list[int]:
    whole = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
    return [n for n, line in enumerate(lines) if whole.search(line)]
