"""The frame of our programs that run in other environments: a job in, a result out.

    python -m include.extract_load.program extract

runs the function ``extract`` of the module ``include.extract_load.extract``. The job is JSON on
standard input, the result JSON on the last line of standard output, and log lines go to standard
error. An error goes out by its name in :mod:`include.errors`.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import threading
from importlib import import_module
from typing import Any

from include.errors import OutsideError, SluiceError, one_line
from include.process import end_with_parent

LEAVE_SECONDS = 10
OURS = ("include", "root")
LONGEST_LINE = 300


def _is_told(record: logging.LogRecord) -> bool:
    """Whether a record is logged: of a library, only the first line of an error.

    Its counters, every try to connect and tracebacks tell nothing that our own error does not.
    """
    if record.name.partition(".")[0] in OURS:
        return True
    record.msg, record.args = one_line(record.getMessage())[:LONGEST_LINE], None
    record.exc_info = record.exc_text = None
    return record.levelno >= logging.ERROR


def _start_log() -> None:
    lines = logging.StreamHandler(sys.stderr)
    lines.addFilter(_is_told)
    logging.basicConfig(handlers=[lines], level=logging.INFO, format="%(message)s")
    threading.excepthook = lambda failed: logging.warning(
        "a thread of a library ended: %s", one_line(failed.exc_value or "")[:LONGEST_LINE]
    )


def _leave(number: int, _frame: object) -> None:
    signal.alarm(LEAVE_SECONDS)  # whatever waits in the cleaning up: the kernel ends it then
    raise SystemExit(128 + number)


def _result(name: str) -> dict[str, Any]:
    try:
        work = getattr(import_module(f"include.extract_load.{name}"), name)
        result: dict[str, Any] = work(json.load(sys.stdin))
    except SluiceError as error:
        result = {"error": type(error).__name__, "message": str(error)}
    except Exception as error:
        logging.exception("unexpected")
        result = {"error": OutsideError.__name__, "message": f"{type(error).__name__}: {error}"}
    return result


def main() -> int:
    """Do one job and print its result; returns the exit status.

    It ends when the task that started it is killed: nobody would wait for its result.

    Python's garbage collector is off: a fifth of the time that the imports take is its own, and a
    program that moves files leaves no cycles worth a search (`make bench-el` shows its memory).
    """
    gc.disable()
    end_with_parent()
    _start_log()
    signal.signal(signal.SIGTERM, _leave)
    try:
        result = _result(sys.argv[1])
    except SystemExit as left:
        return int(left.code or 0)
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if "error" in result else 0


if __name__ == "__main__":
    ended = main()
    sys.stdout.flush()
    os._exit(ended)  # where SIGTERM broke a query off, sys.exit waits for the connector's timers
