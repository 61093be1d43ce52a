"""Load: a sealed spool → target → verified tables, for one stream.

Runs in the target's environment; :mod:`include.extract_load.program` says how jobs come in. No row
passes through this process: the target gets SCHEMA, BATCH and STATE messages, and takes the spool's
files as they are. Under the stream's lock the delivered rows are counted, a full table is put in
place, deleted rows are swept and the ledger gets its row.
"""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, redirect_stdout
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import snowflake.connector

from include.connections import SnowflakeConnection
from include.errors import LoadError, SluiceError, one_line
from include.extract_load.lock import locked
from include.extract_load.schema_change import types_of
from include.extract_load.spool import Seal, Spool
from include.extract_load.warehouse import Warehouse

log = logging.getLogger(__name__)
ENCODING = {"format": "jsonl", "compression": "gzip"}
TARGET = "include.extract_load.snowflake_target"


def messages(seal: Seal, files: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    """The Singer messages that deliver a spool.

    Args:
        seal: The spool's seal.
        files: Where each of its segments is, by name.

    Yields:
        For the rows, then for lists of keys: SCHEMA and, where there are any, one BATCH; at last
        the STATE to go on from.
    """
    parts = {} if seal.is_whole else {"": seal.rows}
    for suffix, part in (parts | seal.beside).items():
        stream = f"{seal.stream}{suffix}"
        # Into an empty table: nothing to merge with, each key comes once.
        key = () if suffix else part.key
        schema = {"schema": part.schema, "key_properties": list(key)}
        yield {"type": "SCHEMA", "stream": stream, **schema}
        if part.segments:
            manifest = [files[segment.file].as_uri() for segment in part.segments]
            yield {"type": "BATCH", "stream": stream, "encoding": ENCODING, "manifest": manifest}
    yield {"type": "STATE", "value": dict(seal.state)}


def load(job: dict[str, Any]) -> dict[str, Any]:
    """Deliver one stream's spool.

    Args:
        job: ``source``, ``stream`` (names), ``connection`` (:meth:`SnowflakeConnection.to_dict`),
            ``target_schema``, ``run_id``, ``spool_root``.

    Returns:
        ``rows`` and ``deleted`` (of this load), ``total`` (in the table), ``bytes``, ``seconds``,
        and ``bookmark``, ``columns`` and ``batched_at``, which the caller may store now, None where
        a later run has loaded more; ``content``: a hash of what was loaded, empty where that was
        nothing, None where the load did more than put rows there.

    Raises:
        SpoolError: There is no whole seal, or files differ from what was sealed.
        LoadError: What arrived is not what was sealed.
    """
    started = time.monotonic()
    # The target takes most of a second to import: meanwhile the session opens and locks.
    threading.Thread(target=import_module, args=(TARGET,), daemon=True).start()
    connection = SnowflakeConnection.from_dict(job["connection"])
    spool = Spool(job["spool_root"], job["source"], job["stream"], job["run_id"])
    seal = spool.read_seal()
    log.info("%s: loading %s rows", seal.stream, seal.rows.rows)
    try:
        deleted, total = _deliver(connection, job["target_schema"], seal, spool)
    except SluiceError:
        raise
    except Exception as error:
        if not isinstance(error, snowflake.connector.Error):  # its message tells all there is
            log.exception("%s: not loaded", seal.stream)
        raise LoadError(f"{seal.stream}: {type(error).__name__}: {one_line(error)[:500]}") from None
    seconds = round(time.monotonic() - started, 1)
    if deleted is None:
        nothing: dict[str, Any] = {"rows": 0, "deleted": 0, "bytes": 0, "content": None}
        to_store = dict.fromkeys(("bookmark", "columns", "batched_at"))
        return {**nothing, "total": total, "seconds": seconds, **to_store}
    rows = seal.rows.rows
    log.info("%s: %s rows delivered, %s deleted in %s s", seal.stream, rows, deleted, seconds)
    return {
        "rows": rows,
        "deleted": deleted,
        "total": total,
        "bytes": seal.rows.bytes,
        "seconds": seconds,
        "bookmark": dict(seal.state) if seal.replication != "full_table" else None,
        "columns": types_of(seal.rows.schema),
        "batched_at": seal.batched_at,
        "content": content_of(seal) if not (deleted or seal.change) else None,
    }


def content_of(seal: Seal) -> str:
    """A hash of the rows of a spool; empty where there are none to be added.

    An incremental stream reads its last rows again each time: twice the same has no news.
    """
    if not seal.is_whole and not seal.rows.rows:
        return ""
    return f"{'whole' if seal.is_whole else 'part'} {seal.rows.content}"


def _deliver(
    connection: SnowflakeConnection, schema: str, seal: Seal, spool: Spool
) -> tuple[int | None, int]:
    """Returns the rows deleted, and those in the table; for what is old by now, None deleted."""
    started = time.monotonic()
    open_session = partial(Warehouse, connection, schema, seal)
    with spool.local_copies(seal.segments) as files, closing(open_session()) as warehouse:
        with locked(warehouse, open_session, seal) as lease:
            warehouse.prepare()
            if newer := warehouse.newer_load():
                said = "%s: left as it is: run %s has loaded what was extracted after this"
                log.info(said, seal.stream, newer)
                spool.mark_delivered(seal.batched_at)
                return None, warehouse.count(warehouse.table())
            if seal.change and not seal.is_whole:
                warehouse.evolve()
            _feed(connection.target_config(schema), seal, files)
            lease.check()
            if seal.is_whole:
                warehouse.replace_table()
            else:
                warehouse.check_upsert()
            deleted = warehouse.take_deleted()
            warehouse.write_ledger(deleted, round(time.monotonic() - started, 3))
            spool.mark_delivered(seal.batched_at)
            return deleted, warehouse.count(warehouse.table())


def _feed(config: Mapping[str, Any], seal: Seal, files: Mapping[str, Path]) -> None:
    """Let the target take a spool; it is done when it has printed the seal's own state."""
    own = {
        "add_record_metadata": True,
        "validate_records": False,
        "timestamp_type": "TIMESTAMP_TZ",
        "load_method": "upsert",
        "clean_up_batch_files": False,  # the spool is not the target's to remove
    }
    lines = "".join(json.dumps(message) + "\n" for message in messages(seal, files))
    printed = io.StringIO()
    with redirect_stdout(printed):
        target = import_module(TARGET).SluiceTarget(config={**config, **own}, validate_config=True)
        target.listen(io.StringIO(lines))
    states = [json.loads(line) for line in printed.getvalue().splitlines() if line.strip()]
    if states[-1:] != [seal.state]:
        raise LoadError(f"{seal.stream}: the target's last state is not the sealed one; load again")
