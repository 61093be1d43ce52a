"""Run one of our own programs in another of the project's Python environments.

The job goes in as JSON on standard input, so that no password is ever on a command line; log lines
come back on standard error as they are written; the last line of standard output is the result.
"""

from __future__ import annotations

import json
import logging
import subprocess
import threading
from collections.abc import Mapping
from typing import IO, Any

from include import errors
from include.process import child
from include.settings import settings

log = logging.getLogger(__name__)


def run_program(environment: str, program: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """Run a program in an environment and return its result.

    Args:
        environment: The environment's name under ``.venvs/``.
        program: ``extract`` or ``load``.
        job: What it is to do; may hold passwords.

    Returns:
        What the program's last line on standard output says.

    Raises:
        SluiceError: The error of :mod:`include.errors` that the program reported by its name.
    """
    python = settings().program(environment, "python")
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with child([python, "-m", "include.extract_load.program", program], **pipes) as process:
        return _exchange(process, program, job)


def _exchange(
    process: subprocess.Popen[bytes], program: str, job: Mapping[str, Any]
) -> dict[str, Any]:
    assert process.stdin and process.stdout and process.stderr  # noqa: S101  (they are pipes)
    relay = threading.Thread(target=_relay, args=(process.stderr,), daemon=True)
    relay.start()
    process.stdin.write(json.dumps(job).encode())
    process.stdin.close()
    lines = process.stdout.read().splitlines()
    status = process.wait()
    relay.join(timeout=10)
    try:
        result: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        raise errors.OutsideError(f"{program} ended with status {status} and no result") from None
    if "error" in result:
        raise getattr(errors, result["error"], errors.OutsideError)(result["message"])
    return result


def _relay(lines: IO[bytes]) -> None:
    for line in lines:
        log.info("%s", line.decode(errors="replace").rstrip())
