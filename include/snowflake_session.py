"""Sessions with Snowflake in which a statement may take as long as its task.

The connector takes ``network_timeout``, for how long it tries to reach a warehouse, for the longest
time that a statement may take, too, and cancels it then. In a process that imports this module it
does not; another time-out, given to ``execute``, holds as ever.
"""

from __future__ import annotations

from typing import Any

import snowflake.connector
from snowflake.connector import cursor

from include.connections import SnowflakeConnection


class _OnlyWhereAsked(cursor._TrackedQueryCancellationTimer):  # type: ignore[misc]
    """The timer of a statement, which begins only where a time was given for this one."""

    def start(self) -> None:
        of: Any = self.function.__self__
        if self.interval != of.connection.network_timeout:
            super().start()


cursor._TrackedQueryCancellationTimer = _OnlyWhereAsked


def open_session(connection: SnowflakeConnection, **options: Any) -> Any:
    """A session of Snowflake's connector.

    Args:
        connection: The warehouse.
        options: In place of what it says, for ``snowflake.connector.connect``.
    """
    return snowflake.connector.connect(**{**connection.connect_args(), **options})
