"""Spools: what one extract of one stream left for its load.

    <spool root>/<source>/<stream>/<run id>/
        rows-0000.jsonl.gz   bare records, one a line: the form of Singer BATCH files
        keys-0000.jsonl.gz   keys of all rows of the source, for streams that sweep deletes
        seal.json            written last: schemas, counts, hashes, first and last state

No seal, no load; a sealed spool never changes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from include.errors import LoadError

FORMAT = 1
SEAL = "seal.json"
SEGMENT_BYTES = 512 * 1024 * 1024  # before compression; about 100 MB after it


@dataclass(frozen=True)
class Segment:
    """One file of a spool."""

    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Part:
    """Segments of one schema: the rows of a stream, or the keys of its source.

    Attributes:
        schema: The Singer schema of the records.
        key: The columns that identify a record.
        segments: The files, in the order in which they were written.
    """

    schema: Mapping[str, Any]
    key: tuple[str, ...]
    segments: tuple[Segment, ...]

    @property
    def rows(self) -> int:
        """Records in all segments."""
        return sum(s.rows for s in self.segments)

    @property
    def bytes(self) -> int:
        """Compressed bytes of all segments."""
        return sum(s.bytes for s in self.segments)


@dataclass(frozen=True)
class Seal:
    """What a whole spool holds."""

    source: str
    stream: str
    run_id: str
    replication: str
    batched_at: str
    rows: Part
    keys: Part | None
    state: Mapping[str, Any]

    def to_json(self) -> str:
        """The text of ``seal.json``."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of :meth:`to_json`."""
        values = json.loads(text)
        if values.pop("format") != FORMAT:
            raise LoadError("the spool was written by another version of Sluice; extract again")
        values["rows"] = _part(values["rows"])
        values["keys"] = _part(values["keys"]) if values["keys"] else None
        return cls(**values)


def _part(values: Mapping[str, Any]) -> Part:
    segments = tuple(Segment(**s) for s in values["segments"])
    return Part(values["schema"], tuple(values["key"]), segments)


def folder(root: str, source: str, stream: str, run_id: str) -> Path:
    """Where one run's spool of one stream is."""
    return Path(root) / source / stream / re.sub(r"[^\w.+-]", "_", run_id)


def start_anew(path: Path) -> None:
    """Empty a spool's folder: what a killed extract left is of no use."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


class PartWriter:
    """Writes segments and remembers what is in them.

    Args:
        path: The spool's folder.
        name: ``rows`` or ``keys``.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._segments: list[Segment] = []
        self._file: gzip.GzipFile | None = None
        self._rows = 0
        self._size = 0

    def write(self, line: bytes) -> None:
        """Add one record, with its newline."""
        if self._file is None:
            target = self._path / f"{self._name}-{len(self._segments):04}.jsonl.gz"
            self._file = gzip.GzipFile(target, "wb", compresslevel=1, mtime=0)
        self._file.write(line)
        self._rows += 1
        self._size += len(line)
        if self._size >= SEGMENT_BYTES:
            self._end_segment()

    def _end_segment(self) -> None:
        if self._file is None:
            return
        self._file.close()
        path = Path(str(self._file.name))
        self._segments.append(Segment(path.name, self._rows, path.stat().st_size, hash_of(path)))
        self._file, self._rows, self._size = None, 0, 0

    def end(self, schema: Mapping[str, Any], key: tuple[str, ...]) -> Part:
        """Close the last segment and return the part."""
        self._end_segment()
        return Part(schema, key, tuple(self._segments))


def hash_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(path: Path, content: Seal) -> None:
    """Write ``seal.json``, whole or not at all."""
    part = path / f"{SEAL}.part"
    part.write_text(content.to_json())
    part.replace(path / SEAL)


def read_seal(path: Path) -> Seal:
    """Read a seal and check every file that it names.

    Raises:
        LoadError: There is no seal, or a file differs from what was sealed.
    """
    try:
        found = Seal.from_json((path / SEAL).read_text())
    except FileNotFoundError:
        raise LoadError(f"{path} has no seal: its extract did not end; run extract again") from None
    for segment in found.rows.segments + (found.keys.segments if found.keys else ()):
        file = path / segment.file
        if not file.exists() or hash_of(file) != segment.sha256:
            raise LoadError(f"{file} differs from what was sealed; run extract again")
    return found
