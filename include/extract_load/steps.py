"""The two steps of a stream, as a task takes them: run the program, then remember.

What is remembered lies in a store: in Airflow the asset state store of the raw table, given here as
anything that can get and set. Only load writes to it, as its last act, so that a run which stops
anywhere is simply done again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from include.connections import PostgresConnection, SnowflakeConnection
from include.extract_load.source import Source, Stream
from include.program import run_program
from include.settings import settings

BOOKMARK, COLUMNS, LOADED_AT = "bookmark", "columns", "batched_at"
NEWS, CONTENT = "news", "content"
LOADING = "loading"  # the content while it changes


class Store(Protocol):
    """What is remembered of a stream between runs."""

    def get(self, key: str, /) -> Any:
        """A value, or None."""

    def set(self, key: str, value: Any, /) -> None:
        """Keep a value."""


@dataclass(frozen=True)
class Steps:
    """Extract and load of one stream in one run.

    Attributes:
        source: The source file's content.
        stream: One of its streams.
        run_id: The DAG's id and that of its run.
        store: What is remembered of the stream.
    """

    source: Source
    stream: Stream
    run_id: str
    store: Store

    def _job(self) -> dict[str, Any]:
        root = settings().spool_root
        return {"source": self.source.name, "run_id": self.run_id, "spool_root": root}

    def extract_job(self, connection: PostgresConnection) -> dict[str, Any]:
        """What the program ``extract`` is told; holds the password."""
        here = settings()
        return self._job() | {
            "stream": self.stream.to_dict(),
            "connection": connection.to_dict(),
            "bookmark": self.store.get(BOOKMARK),
            "columns": self.store.get(COLUMNS),
            "loaded_at": self.store.get(LOADED_AT),
            "keep": {"runs": here.spool_keep_runs, "days": here.spool_keep_days},
        }

    def load_job(self, connection: SnowflakeConnection) -> dict[str, Any]:
        """What the program ``load`` is told; holds the password."""
        return self._job() | {
            "stream": self.stream.name,
            "target_schema": self.source.target_schema,
            "connection": connection.to_dict(),
        }

    def extract(self, connection: PostgresConnection) -> dict[str, Any]:
        """Read the stream into a sealed spool.

        Returns:
            What the seal says: ``rows``, ``bytes``, ``seconds``, ``keys``.

        Raises:
            SluiceError: As :func:`include.extract_load.extract.extract`.
        """
        return run_program("singer", "extract", self.extract_job(connection))

    def load(self, connection: SnowflakeConnection) -> dict[str, Any]:
        """Deliver the run's spool, then move the bookmark.

        Returns:
            What the ledger says: ``rows``, ``deleted``, ``total``, ``bytes``, ``seconds``; and
            ``news``: when the last load that changed the table was extracted, None for unknown.

        Raises:
            SluiceError: As :func:`include.extract_load.load.load`.
        """
        before = self.store.get(CONTENT)
        self.store.set(CONTENT, LOADING)
        result = run_program("target-snowflake", "load", self.load_job(connection))
        content, loaded_at = result.pop(CONTENT), result[LOADED_AT]
        if loaded_at and has_news(before, content):
            self.store.set(NEWS, loaded_at)
            self.store.set(CONTENT, content or "")
        elif loaded_at:
            self.store.set(CONTENT, before)
        # Overtaken, it does not know: what the other run has loaded, that may not have told of yet.
        result[NEWS] = self.store.get(NEWS) if loaded_at else None
        for key in (COLUMNS, LOADED_AT, BOOKMARK):
            value = result.pop(key)
            if value is not None:
                self.store.set(key, value)
        return result


def has_news(before: str | None, content: str | None) -> bool:
    """Whether a load may have made another table of a stream's.

    Args:
        before: The content of the load before; None where there was none. Of one that died nothing
            is known: it may have deleted rows, of which the next finds nothing left to do.
        content: The content of this load; empty for no rows, None where it did more than add some.

    >>> has_news("part a1", "part a1"), has_news("part a1", "")
    (False, False)
    >>> has_news("part a1", "part b2"), has_news(LOADING, ""), has_news(None, "part a1")
    (True, True, True)
    """
    return before in (None, LOADING) or content is None or content not in ("", before)
