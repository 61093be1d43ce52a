"""The frame of our programs that run in other environments: a job in, a result out.

The job is JSON on standard input, the result JSON on the last line of standard output, and log
lines go to standard error. An error goes out by its name in :mod:`include.errors`.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable
from typing import Any

from include.errors import OutsideError, SluiceError


def _leave(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def answer(work: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """Do one job and print its result.

    Args:
        work: Takes the job, returns the result.

    Returns:
        The exit status.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    signal.signal(signal.SIGTERM, _leave)
    try:
        result = work(json.load(sys.stdin))
    except SluiceError as error:
        result = {"error": type(error).__name__, "message": str(error)}
    except Exception as error:
        logging.exception("unexpected")
        result = {"error": OutsideError.__name__, "message": f"{type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if "error" in result else 0
