"""Spools: what one extract of one stream left for its load.

    <spool root>/<source>/<stream>/<dag>_<run id>/
        rows-0000.jsonl.gz   bare records, one a line: the form of Singer BATCH files
        keys-0000.jsonl.gz   keys of all rows of the source, where deleted rows are swept
        gone-0000.jsonl.gz   keys of deleted rows, where the source's log tells them
        seal.json            written last: schemas, counts, hashes, first and last state
        delivered-<time>     written by load, once the warehouse has it all; when it was extracted

The root is a folder of this machine or an fsspec URL (``s3://bucket/spool``). No seal, no load; a
sealed spool never changes.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Self

from fsspec.implementations.local import LocalFileSystem

from include.errors import ExtractError, LoadError, OutsideError, SpoolError
from include.extract_load.disk import disk_errors, file_system, run_folder, temporary_folder

FORMAT = 4
SEAL = "seal.json"
DELIVERED, MOMENT = "delivered-", "%Y%m%dT%H%M%S.%fZ"
NEW, KEYS, GONE = "__new", "__keys", "__gone"
MEGABYTE = 1024 * 1024
SEGMENT = re.compile(r"(rows|keys|gone)-\d{4,}\.jsonl\.gz")
BLOCK_BYTES = 64 * 1024  # what is compressed at a time
GZIP = 31  # zlib's word for a gzip file; its header has no time in it
GZIP_LEVEL = 1
# What extract adds at the end of each row: the moment of this run, no news of the source.
MARKS = re.compile(rb',"_sdc_extracted_at":[^,]*,"_sdc_batched_at":[^}]*')


@dataclass(frozen=True)
class Segment:
    """One file of a spool."""

    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Part:
    """Segments of one schema: rows of a stream, or the keys of its source.

    Attributes:
        schema: The Singer schema of the records.
        key: The columns that identify a record.
        segments: The files, in the order in which they were written.
        content: SHA-256 of all records, in hex, but for what extract adds to each.
    """

    schema: Mapping[str, Any]
    key: tuple[str, ...]
    segments: tuple[Segment, ...]
    content: str

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
    """What a whole spool holds.

    Attributes:
        batched_at: The source database's clock when extract began: later spools are newer.
        rows: What is new in the source, or all it has.
        keys: The keys that the source has.
        gone: Keys that it had.
        first_state: The bookmark that extract went on from, or None.
        state: The bookmark to go on from once this spool is loaded.
        change: What became of the columns since the last load; empty for nothing.
    """

    source: str
    stream: str
    run_id: str
    replication: str
    batched_at: str
    rows: Part
    keys: Part | None
    first_state: Mapping[str, Any] | None
    state: Mapping[str, Any]
    change: str = ""
    gone: Part | None = None
    marks_deleted: bool = False

    @property
    def beside(self) -> dict[str, Part]:
        """The parts that a load puts into tables beside the raw one, by suffix."""
        parts = {NEW: self.rows if self.is_whole else None, KEYS: self.keys, GONE: self.gone}
        return {suffix: part for suffix, part in parts.items() if part}

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The files of all parts."""
        parts = (self.rows, self.keys, self.gone)
        return tuple(segment for part in parts if part for segment in part.segments)

    @property
    def is_whole(self) -> bool:
        """Whether it holds all rows of the source, to take the place of those loaded before."""
        return not self.first_state

    def to_json(self) -> str:
        """The text of ``seal.json``."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            ValueError: It is another's: names of files lead elsewhere, or the moment is none.
        """
        values = json.loads(text)
        if values.pop("format") != FORMAT:
            raise SpoolError("the spool was written by another version of Sluice; extract again")
        parts = {name: _part(values[name]) for name in ("rows", "keys", "gone") if values[name]}
        found = cls(**values | parts)
        datetime.fromisoformat(found.batched_at)
        if strange := [s.file for s in found.segments if not SEGMENT.fullmatch(s.file)]:
            raise ValueError(f"{strange[0]!r} is no file of a spool's")
        return found


def _part(values: Mapping[str, Any]) -> Part:
    segments = tuple(Segment(**s) for s in values["segments"])
    return Part(values["schema"], tuple(values["key"]), segments, values["content"])


@dataclass(frozen=True)
class Keep:
    """How long delivered spools are kept.

    Attributes:
        runs: The newest so many, whatever their age.
        days: All of these days.
    """

    runs: int
    days: float


class Spool:
    """The folder of one run's extract of one stream.

    What its disk refuses is an ExtractError where extract writes, and a LoadError where load does.

    Args:
        root: The spool root: a path or an fsspec URL.
        source: The source's name.
        stream: The stream's name.
        run_id: The DAG's id and that of its run.

    Raises:
        ConfigError: This environment has no driver for such a root.
    """

    def __init__(self, root: str, source: str, stream: str, run_id: str) -> None:
        self._files, base = file_system("SLUICE_SPOOL", root)
        self._of = (source, stream)
        self._runs = "/".join([base.rstrip("/"), source, stream])
        self.path = self._runs + "/" + run_folder(run_id)

    def __str__(self) -> str:
        return str(self._files.unstrip_protocol(self.path))

    def disk_errors(self, error: type[OutsideError]) -> AbstractContextManager[None]:
        """Around what is written or read here; `error` is the step's own."""
        return disk_errors(f"spool {self}", error)

    def start_anew(self) -> None:
        """Empty the folder: what a killed extract left is of no use."""
        with self.disk_errors(ExtractError):
            if self._files.exists(self.path):
                self._files.rm(self.path, recursive=True)
            self._files.makedirs(self.path, exist_ok=True)

    def create(self, file: str) -> IO[bytes]:
        """A new file to write to."""
        with self.disk_errors(ExtractError):
            opened: IO[bytes] = self._files.open(f"{self.path}/{file}", "wb")
        return opened

    def seal(self, content: Seal) -> None:
        """Write ``seal.json``, whole or not at all."""
        part = f"{self.path}/{SEAL}.part"
        with self.disk_errors(ExtractError):
            self._files.pipe_file(part, content.to_json().encode())
            self._files.mv(part, f"{self.path}/{SEAL}")

    def read_seal(self) -> Seal:
        """The seal.

        Raises:
            SpoolError: There is none, or it is not the one that extract has written here.
        """
        with self.disk_errors(LoadError):
            try:
                text = self._files.cat_file(f"{self.path}/{SEAL}")
            except FileNotFoundError:
                raise SpoolError(
                    f"{self} has no seal: its extract did not end; run extract again"
                ) from None
        try:
            found = Seal.from_json(text)
            if (found.source, found.stream) != self._of:
                raise ValueError(f"it is of {found.source}/{found.stream}")
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise SpoolError(f"{self}: its seal was changed: {error}; extract again") from None
        return found

    def mark_delivered(self, batched_at: str) -> None:
        """Note that the warehouse has it all; by name, so that one listing tells of all spools."""
        moment = datetime.fromisoformat(batched_at).astimezone(UTC).strftime(MOMENT)
        with self.disk_errors(LoadError):
            self._files.pipe_file(f"{self.path}/{DELIVERED}{moment}", b"")

    def prune(self, loaded_at: str, keep: Keep) -> list[str]:
        """Remove old spools of this stream that nobody needs any more.

        What was never delivered stays, however old: it may be all there is of some rows.

        Args:
            loaded_at: ``batched_at`` of the last spool whose bookmark was stored.
            keep: How many to keep, and for how long.

        Returns:
            Their run folders, oldest first.
        """
        found = sorted((at, path) for path, at in self._delivered().items() if path != self.path)
        oldest = datetime.now(UTC) - timedelta(days=keep.days)
        gone = [
            path
            for at, path in found[: -keep.runs or None]
            if at <= datetime.fromisoformat(loaded_at) and at < oldest
        ]
        with self.disk_errors(ExtractError):
            for path in gone:
                self._files.rm(path, recursive=True)
        return [path.rpartition("/")[2] for path in gone]

    def _delivered(self) -> dict[str, datetime]:
        """Folders of delivered spools, and when these were extracted."""
        self._files.invalidate_cache(self._runs)
        found = {}
        for file in self._files.find(self._runs):
            folder, _, name = str(file).rpartition("/")
            if name.startswith(DELIVERED):
                at = datetime.strptime(name.removeprefix(DELIVERED), MOMENT)
                found[folder] = at.replace(tzinfo=UTC)
        return found

    @contextmanager
    def local_copies(self, segments: Iterable[Segment]) -> Iterator[dict[str, Path]]:
        """Segments as files of this machine, by name, with the content that was sealed.

        Raises:
            SpoolError: One differs from what was sealed.
            LoadError: It cannot be had.
        """
        if isinstance(self._files, LocalFileSystem):
            with self.disk_errors(LoadError):
                files = {s.file: self.checked(s, Path(self.path)).resolve() for s in segments}
            yield files
        else:
            with temporary_folder(LoadError) as folder:
                with disk_errors(f"copy of spool {self} in {folder}", LoadError):
                    files = {s.file: self.checked(s, folder) for s in segments}
                yield files

    def checked(self, segment: Segment, folder: Path) -> Path:
        """A segment as a file of this machine, with the content that was sealed.

        Args:
            segment: One of the seal's.
            folder: Where to put it, if the spool is not on this machine.

        Raises:
            SpoolError: It differs from what was sealed.
        """
        here, remote = folder / segment.file, f"{self.path}/{segment.file}"
        try:
            if isinstance(self._files, LocalFileSystem):
                here = Path(remote)
            else:
                self._files.get_file(remote, str(here))
            found = hash_of(here)
        except FileNotFoundError:
            found = ""
        if found != segment.sha256:
            raise SpoolError(f"{self}/{segment.file} differs from what was sealed; extract again")
        return here


class _Hashed:
    """Counts and hashes what goes through it to a file of a spool."""

    def __init__(self, spool: Spool, name: str) -> None:
        self._spool = spool
        self._file = spool.create(name)
        self._digest = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self.bytes += len(data)
        with self._spool.disk_errors(ExtractError):
            return self._file.write(data)

    def close(self) -> str:
        """Close the file; returns the hash of what it holds, in hex."""
        with self._spool.disk_errors(ExtractError):
            self._file.close()
        return self._digest.hexdigest()


class PartWriter:
    """Writes segments and remembers what is in them.

    Args:
        spool: Where to.
        name: ``rows``, ``keys`` or ``gone``.
        full: Bytes of a segment, before compression.
    """

    def __init__(self, spool: Spool, name: str, full: int = 512 * MEGABYTE) -> None:
        self._spool = spool
        self._name = name
        self._full = full
        self._segments: list[Segment] = []
        self._file: _Hashed | None = None
        self._gzip = zlib.compressobj(GZIP_LEVEL, wbits=GZIP)
        self._block = bytearray()
        self._content = hashlib.sha256()
        self._rows = 0
        self._size = 0

    def write(self, line: bytes) -> None:
        """Add one record, with its newline."""
        if self._file is None:
            self._file = _Hashed(self._spool, self._next())
            self._gzip = zlib.compressobj(GZIP_LEVEL, wbits=GZIP)
        self._block += line
        self._rows += 1
        self._size += len(line)
        if len(self._block) >= BLOCK_BYTES:
            self._file.write(self._compressed())
        if self._size >= self._full:
            self._end_segment()

    def _compressed(self) -> bytes:
        """What was gathered since the last time."""
        self._content.update(MARKS.sub(b"", self._block))
        compressed = self._gzip.compress(self._block)
        self._block.clear()
        return compressed

    def _next(self) -> str:
        return f"{self._name}-{len(self._segments):04}.jsonl.gz"

    def _end_segment(self) -> None:
        if self._file is None:
            return
        self._file.write(self._compressed() + self._gzip.flush())
        sha256 = self._file.close()
        self._segments.append(Segment(self._next(), self._rows, self._file.bytes, sha256))
        self._file, self._rows, self._size = None, 0, 0

    def end(self, schema: Mapping[str, Any], key: tuple[str, ...]) -> Part:
        """Close the last segment and return the part."""
        self._end_segment()
        return Part(schema, key, tuple(self._segments), self._content.hexdigest())


def hash_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
