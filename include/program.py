"""Run one of our own programs in another of the project's Python environments.

The job goes in as JSON on standard input, so that no password is ever on a command line; log lines
come back on standard error as they are written; the last line of standard output is the result.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import threading
from collections.abc import Mapping
from typing import IO, Any

from include import errors
from include.settings import child_environment, settings

log = logging.getLogger(__name__)
STOP_SECONDS = 30


def run_program(environment: str, module: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """Run ``python -m module`` in an environment and return its result.

    Args:
        environment: The environment's name under ``.venvs/``.
        module: The module to run.
        job: What it is to do; may hold passwords.

    Returns:
        What the program's last line on standard output says.

    Raises:
        SluiceError: The error of :mod:`include.errors` that the program reported by its name.
    """
    python = settings().program(environment, "python")
    try:
        process = subprocess.Popen(
            [str(python), "-m", module],
            env=child_environment(),
            cwd=settings().root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    except FileNotFoundError:
        raise errors.LocalError(f"{python} is missing: run scripts/install.sh") from None
    try:
        return _exchange(process, module, job)
    finally:
        _end(process)


def _exchange(
    process: subprocess.Popen[str], module: str, job: Mapping[str, Any]
) -> dict[str, Any]:
    assert process.stdin and process.stdout and process.stderr  # noqa: S101  (they are pipes)
    relay = threading.Thread(target=_relay, args=(process.stderr,), daemon=True)
    relay.start()
    with process.stdin as job_pipe:
        job_pipe.write(json.dumps(job))
    lines = process.stdout.read().splitlines()
    status = process.wait()
    relay.join(timeout=10)
    try:
        result: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        raise errors.OutsideError(f"{module} ended with status {status} and no result") from None
    if "error" in result:
        raise getattr(errors, result["error"], errors.OutsideError)(result["message"])
    return result


def _relay(lines: IO[str]) -> None:
    for line in lines:
        log.info("%s", line.rstrip())


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
