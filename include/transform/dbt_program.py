"""dbt as tasks run it, in dbt's own environment: ``python -m include.transform.dbt_program run …``.

It is dbt's own command line, after one thing that several threads must not do at once.
"""

from __future__ import annotations

import base64
import signal
import sys

from include.process import end_with_parent

# An Arrow stream of no columns and no batches, as pyarrow writes it.
EMPTY_STREAM = base64.b64decode(
    "/////zAAAAAQAAAAAAAKAAwABgAFAAgACgAAAAABBAAMAAAACAAIAAAABAAIAAAABAAAAAAAAAD/////AAAAAA=="
)


def make_results_safe() -> None:
    """Read one empty result, so that dbt's threads can read theirs at the same time.

    The first result that snowflake-connector-python 4.8 reads sets up a logger in C++: a
    ``std::call_once`` around a Python import. Two threads that come there together wait for each
    other for ever, one for the flag, one for the interpreter's lock. Seen as `dbt test` that never
    ends; perhaps https://github.com/snowflakedb/snowflake-connector-python/issues/2213.
    """
    from snowflake.connector.arrow_context import ArrowConverterContext
    from snowflake.connector.nanoarrow_arrow_iterator import PyArrowRowIterator

    list(
        PyArrowRowIterator(None, EMPTY_STREAM, ArrowConverterContext(), False, False, False, False)
    )


def main() -> None:
    """Run dbt with this process's arguments; exits with dbt's status.

    When it is told to end, or its parent dies, dbt cancels its queries first.
    """
    end_with_parent()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    make_results_safe()
    from dbt.cli.main import cli

    sys.argv[0] = "dbt"
    cli()


if __name__ == "__main__":
    main()
