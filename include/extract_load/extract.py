"""Extract: tap → filter → spool, for one stream.

Run in the ``singer`` environment as ``python -m include.extract_load.extract``; see
:mod:`include.extract_load.program` for how jobs come in.
"""

from __future__ import annotations

import collections
import json
import logging
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any

import simplejson

from include.connections import PostgresConnection
from include.errors import ExtractError
from include.extract_load import spool
from include.extract_load.program import answer
from include.extract_load.source import Stream
from include.extract_load.table import (
    Conversion,
    Table,
    catalog,
    conversions,
    describe,
    keys,
    warehouse_schema,
)
from include.process import child
from include.settings import settings

log = logging.getLogger(__name__)
KEPT_LOG_LINES = 20
STOP_SECONDS = 10


@contextmanager
def _private_files(**contents: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """JSON files in a folder that only this user can open; removed at the end."""
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        paths = {}
        for name, content in contents.items():
            path = Path(folder) / f"{name}.json"
            path.write_text(json.dumps(content))
            paths[name] = str(path)
        yield paths


@contextmanager
def _tap(files: Mapping[str, str]) -> Iterator[IO[bytes]]:
    """The messages of the running tap.

    Raises:
        ExtractError: It ended with an error; the message has its last line.
    """
    command = [str(settings().program("tap-postgres", "tap-postgres"))]
    for option, path in files.items():
        command += [f"--{option}", path]
    last: collections.deque[str] = collections.deque(maxlen=KEPT_LOG_LINES)
    with child(command, stdin=subprocess.DEVNULL, stdout=PIPE, stderr=PIPE) as process:
        assert process.stdout and process.stderr  # noqa: S101  (they are pipes)
        reader = threading.Thread(target=_keep_log, args=(process.stderr, last), daemon=True)
        reader.start()
        yield process.stdout
        status = process.wait(STOP_SECONDS)
        reader.join(STOP_SECONDS)
    if status:
        raise ExtractError(f"the tap ended with status {status}: {_reason(last)}")


def _keep_log(lines: IO[bytes], last: collections.deque[str]) -> None:
    for raw in lines:
        line = raw.decode(errors="replace").rstrip()
        last.append(line)
        log.debug("tap: %s", line)


def _reason(last: collections.deque[str]) -> str:
    said = [line for line in last if line.strip()]
    critical = [line for line in said if "CRITICAL" in line or "Error" in line]
    return (critical or said or ["it said nothing"])[-1]


class Filter:
    """Turns the tap's messages into records for the spool.

    Args:
        table: Which columns are kept.
        convert: What to do to values, by column.
        batched_at: The moment of this extract, the same for all of its records.
    """

    def __init__(self, table: Table, convert: Mapping[str, Conversion], batched_at: str) -> None:
        self._names = [c.name for c in table.columns]
        self._key = table.key
        self._convert = convert
        self._batched_at = batched_at
        self.state: dict[str, Any] = {}

    def record(self, line: bytes, number: int) -> bytes | None:
        """One message; returns the record's line, or None where there is none to write.

        Raises:
            ExtractError: The message is broken, or a key is NULL.
        """
        try:
            message = simplejson.loads(line, use_decimal=True)
            kind = message["type"]
        except (ValueError, TypeError, KeyError):
            raise ExtractError(f"the tap's line {number} is not a Singer message") from None
        if kind == "STATE":
            self.state = message["value"]
        if kind != "RECORD":
            return None
        row = message["record"]
        record = {name: row.get(name) for name in self._names}
        for name, change in self._convert.items():
            record[name] = change(record[name])
        for name in self._key:
            if record[name] is None:
                raise ExtractError(f"the tap's line {number}: the key column {name!r} is NULL")
        record["_sdc_extracted_at"] = message.get("time_extracted")
        record["_sdc_batched_at"] = self._batched_at
        text: str = simplejson.dumps(record, use_decimal=True, ensure_ascii=False)
        return f"{text}\n".encode()


def extract(job: dict[str, Any]) -> dict[str, Any]:
    """Read one stream into a sealed spool.

    Args:
        job: ``source`` (its name), ``stream`` (:meth:`Stream.to_dict`), ``connection``
            (:meth:`PostgresConnection.to_dict`), ``run_id``, ``spool_root``, ``bookmark`` (the
            state that the last load committed, or None).

    Returns:
        ``rows``, ``bytes``, ``seconds`` and ``keys``, the swept keys.

    Raises:
        SourceFileError: The stream does not fit its table.
        ExtractError: The database or the tap failed.
    """
    started = time.monotonic()
    connection = PostgresConnection.from_dict(job["connection"])
    stream = Stream.from_dict(job["stream"])
    table = describe(connection, stream)
    path = spool.folder(job["spool_root"], job["source"], stream.name, job["run_id"])
    spool.start_anew(path)
    batched_at = datetime.now(UTC).isoformat()
    rows, state = _read(connection, stream, table, job["bookmark"], path, batched_at)
    swept = _sweep(connection, table, path) if stream.deletes == "sweep" else None
    content = spool.Seal(
        source=job["source"],
        stream=stream.name,
        run_id=job["run_id"],
        replication=stream.replication,
        batched_at=batched_at,
        rows=rows,
        keys=swept,
        state=state,
    )
    spool.seal(path, content)
    seconds = round(time.monotonic() - started, 1)
    log.info("%s: %s rows, %s bytes in %s s", stream.name, rows.rows, rows.bytes, seconds)
    keys_kept = swept.rows if swept else None
    return {"rows": rows.rows, "bytes": rows.bytes, "seconds": seconds, "keys": keys_kept}


def _read(
    connection: PostgresConnection,
    stream: Stream,
    table: Table,
    bookmark: Mapping[str, Any] | None,
    path: Path,
    batched_at: str,
) -> tuple[spool.Part, dict[str, Any]]:
    files: dict[str, Mapping[str, Any]] = {
        "config": {**connection.tap_config(), "filter_schemas": table.schema},
        "catalog": catalog(table, stream, connection.database),
    }
    if bookmark and stream.replication == "incremental":
        files["state"] = bookmark
    writer = spool.PartWriter(path, "rows")
    records = Filter(table, conversions(table, stream), batched_at)
    log.info("%s: reading %s, %s", stream.name, stream.table, stream.replication)
    with _private_files(**files) as paths, _tap(paths) as messages:
        for number, line in enumerate(messages, 1):
            if (record := records.record(line, number)) is not None:
                writer.write(record)
    if not records.state:
        raise ExtractError(f"{stream.name}: the tap ended without a state; nothing was sealed")
    return writer.end(warehouse_schema(table), table.key), records.state


def _sweep(connection: PostgresConnection, table: Table, path: Path) -> spool.Part:
    """Spool the keys of all rows, read after the rows so that no new row is taken for a deleted."""
    writer = spool.PartWriter(path, "keys")
    for key in keys(connection, table):
        writer.write((json.dumps(dict(zip(table.key, key, strict=True))) + "\n").encode())
    properties = warehouse_schema(table)["properties"]
    schema = {"type": "object", "properties": {name: properties[name] for name in table.key}}
    return writer.end(schema, table.key)


if __name__ == "__main__":
    sys.exit(answer(extract))
