"""dbt as tasks run it, in dbt's own environment: ``python -m include.transform.dbt_program run …``.

It is dbt's own command line, but for hooks: models' commands run none, and ``on-run-start`` and
``on-run-end RESULTS`` are commands that run them alone. ``parse`` leaves a manifest, others do not.
``whole`` before a command leaves it as dbt has it.
"""

from __future__ import annotations

import base64
import inspect
import multiprocessing
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from include.process import end_with_parent

CANCEL_AGAIN_SECONDS = 1
CANCEL_SECONDS = 30
FAILED = 2  # dbt's own exit status for what is not a failed node
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


def make_locks_light() -> None:
    """Have dbt's locks be those of forks: the others start a process of Python's to watch them."""
    import dbt.mp_context

    dbt.mp_context._MP_CONTEXT = multiprocessing.get_context("fork")


def make_flags_light() -> None:
    """Have dbt's adapter tell by whom a flag is declared without looking at all modules.

    dbt-common 1.39 asks ``inspect.stack`` for each flag, whether anybody is told or not, and that
    reads source files and searches every module that is imported: a quarter of a forked command.
    """
    from dbt_common.behavior_flags import BehaviorFlagRendered

    def declared_in() -> str:
        frame = inspect.currentframe()
        while frame and frame.f_globals["__name__"] in (__name__, BehaviorFlagRendered.__module__):
            frame = frame.f_back
        return str(frame.f_globals["__name__"]) if frame else "Unknown"

    BehaviorFlagRendered._default_source = staticmethod(declared_in)


def make_cancels_last() -> None:
    """Have an interrupted dbt cancel what its threads run until they have ended.

    dbt 1.11 cancels once: a statement that a thread sends a moment later runs to its end.
    """
    from dbt.adapters.factory import get_adapter
    from dbt.task.runnable import GraphRunnableTask
    from dbt_common.exceptions import DbtBaseException

    original = GraphRunnableTask._cancel_connections

    def cancel_connections(self: Any, pool: Any) -> None:
        adapter, join = get_adapter(self.config), pool.join

        def join_and_cancel() -> None:
            ending = threading.Thread(target=join, daemon=True)
            ending.start()
            ending.join(CANCEL_AGAIN_SECONDS)
            while ending.is_alive():
                with suppress(DbtBaseException), adapter.connection_named("master"):
                    adapter.cancel_open_connections()
                ending.join(CANCEL_AGAIN_SECONDS)

        pool.join = join_and_cancel
        original(self, pool)

    GraphRunnableTask._cancel_connections = cancel_connections


def mend_dbt() -> None:
    """What every process that runs dbt's commands needs, before its first one."""
    make_results_safe()
    make_locks_light()
    make_flags_light()
    make_cancels_last()


def invoke(arguments: Sequence[str], manifest: Any = None) -> int:
    """Run one command, the only one of this process.

    Args:
        arguments: What follows ``dbt`` on a command line.
        manifest: dbt's Manifest of the project, where it is parsed already.

    Returns:
        dbt's exit status: 0, 1 where a node did not do well, 2 for all else.
    """
    from dbt.cli.main import dbtRunner
    from dbt_common.exceptions import DbtBaseException

    from include.transform import hooks

    line = list(arguments)
    if line[:1] == ["on-run-start"]:
        line = ["run", *line[1:]]
        hooks.alone(None)
    elif line[:1] == ["on-run-end"]:
        line = ["run", *line[2:]]
        hooks.alone(Path(arguments[1]))
    elif line[:1] == ["whole"]:
        line = line[1:]
    elif line[:1] != ["parse"]:
        hooks.without()
    outcome = dbtRunner(manifest=manifest).invoke(line)
    if isinstance(outcome.exception, KeyboardInterrupt):
        raise outcome.exception
    if outcome.exception is not None:
        if not isinstance(outcome.exception, DbtBaseException):  # else dbt has said so itself
            sys.stdout.write(f"{type(outcome.exception).__name__}: {outcome.exception}\n")
        return FAILED
    if line[0] == "parse" and manifest:  # dbt writes only what it has parsed itself
        outcome.result.write(str(Path(line[line.index("--target-path") + 1]) / "manifest.json"))
    return 0 if outcome.success else 1


def _cancel(*_: object) -> NoReturn:
    signal.alarm(CANCEL_SECONDS)  # which ends the process, though the warehouse never answers
    raise KeyboardInterrupt


def main() -> None:
    """Run dbt with this process's arguments; exits with dbt's status.

    When it is told to end, or its parent dies, dbt cancels its queries first: 30 seconds at most.
    """
    end_with_parent()
    signal.signal(signal.SIGTERM, _cancel)
    mend_dbt()
    sys.exit(invoke(sys.argv[1:]))


if __name__ == "__main__":
    main()
