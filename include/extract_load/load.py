"""Load: a sealed spool → target → verified tables, for one stream.

Run in the ``singer`` environment as ``python -m include.extract_load.load``; see
:mod:`include.extract_load.program` for how jobs come in. No row passes through this process: the
target gets SCHEMA, BATCH and STATE messages, and takes the spool's files as they are.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from include.connections import SnowflakeConnection
from include.errors import LoadError
from include.extract_load import spool
from include.extract_load.program import answer
from include.process import child
from include.settings import settings

log = logging.getLogger(__name__)
LOGGED_LINES = 60
ENCODING = {"format": "jsonl", "compression": "gzip"}


def messages(seal: spool.Seal, path: Path) -> Iterator[dict[str, Any]]:
    """The Singer messages that deliver a spool.

    Args:
        seal: The spool's seal.
        path: The spool's folder.

    Yields:
        For the rows, then for the swept keys: SCHEMA and, where there are any, one BATCH; at last
        the STATE that the tap ended with.
    """
    parts = [(seal.stream + ("__new" if seal.replication == "full_table" else ""), seal.rows)]
    if seal.keys:
        parts.append((f"{seal.stream}__keys", seal.keys))
    for stream, part in parts:
        yield {
            "type": "SCHEMA",
            "stream": stream,
            "schema": part.schema,
            "key_properties": list(part.key),
        }
        if part.segments:
            manifest = [(path / segment.file).resolve().as_uri() for segment in part.segments]
            yield {"type": "BATCH", "stream": stream, "encoding": ENCODING, "manifest": manifest}
    yield {"type": "STATE", "value": dict(seal.state)}


def load(job: dict[str, Any]) -> dict[str, Any]:
    """Deliver one stream's spool.

    Args:
        job: ``source``, ``stream`` (names), ``connection`` (:meth:`SnowflakeConnection.to_dict`),
            ``target_schema``, ``run_id``, ``spool_root``.

    Returns:
        ``rows`` and ``deleted`` (of this load), ``total`` (in the table), ``bytes``, ``seconds``,
        and ``bookmark``, which the caller may store now.

    Raises:
        LoadError: There is no whole seal, or what arrived is not what was sealed.
    """
    started = time.monotonic()
    connection = SnowflakeConnection.from_dict(job["connection"])
    path = spool.folder(job["spool_root"], job["source"], job["stream"], job["run_id"])
    seal = spool.read_seal(path)
    log.info("%s: loading %s rows", seal.stream, seal.rows.rows)
    config = {
        **connection.target_config(job["target_schema"]),
        "add_record_metadata": True,
        "validate_records": False,
        "timestamp_type": "TIMESTAMP_TZ",
        "load_method": "upsert",
        "clean_up_batch_files": False,  # the spool is not the target's to remove
    }
    result = _deliver(seal, path, config)
    if result["state"] != seal.state:
        raise LoadError(f"{seal.stream}: the target's last state is not the sealed one; load again")
    seconds = round(time.monotonic() - started, 1)
    log.info(
        "%s: %s rows delivered, %s deleted in %s s",
        seal.stream,
        result["rows"],
        result["deleted"],
        seconds,
    )
    figures = {k: result[k] for k in ("rows", "deleted", "total")}
    return {
        **figures,
        "bytes": seal.rows.bytes,
        "seconds": seconds,
        "bookmark": dict(seal.state) if seal.replication == "incremental" else None,
    }


def _deliver(seal: spool.Seal, path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="sluice-") as private:
        folder = Path(private)
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "seal.json").write_text(seal.to_json())
        lines = "".join(json.dumps(m) + "\n" for m in messages(seal, path))
        (folder / "messages.jsonl").write_text(lines)
        status, said = _run_target(folder)
        result = folder / "result.json"
        if status or not result.exists():
            raise LoadError(
                f"{seal.stream}: the target ended with status {status}: {_reason(said)}"
            )
        answer: dict[str, Any] = json.loads(result.read_text())
    if "error" in answer:
        raise LoadError(f"{seal.stream}: {answer['error']}")
    return answer


def _run_target(folder: Path) -> tuple[int, list[str]]:
    python = settings().program("target-snowflake", "python")
    command: list[str | Path] = [python, "-m", "include.extract_load.load_target", folder]
    said: list[str] = []
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    with child(command, **quiet, stderr=subprocess.PIPE) as process:
        for line in process.stderr or ():
            said = [*said[-200:], line.decode(errors="replace").rstrip()]
        return process.wait(), said


def _reason(said: list[str]) -> str:
    """The last line that names an exception; the lines before it go to the log.

    >>> _reason(["sqlalchemy.exc.SomeError: no such table", "(Background on this error at: …)"])
    'sqlalchemy.exc.SomeError: no such table'
    """
    for line in said[-LOGGED_LINES:]:
        log.error("target: %s", line)
    errors = [line for line in said if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (errors or said or ["it said nothing"])[-1].strip()[:500]


if __name__ == "__main__":
    sys.exit(answer(load))
