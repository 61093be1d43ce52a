"""Ask the warm dbt process to run a command; :mod:`include.transform.warm_dbt_server` answers.

The request is one line of JSON, sent with the write end of a pipe. Two lines come back: one when
the command starts, one with dbt's exit status when it has ended; what dbt says comes through the
pipe. Whoever asks and goes away, however it goes, ends the command.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from include.errors import DbtRunError

START_SECONDS = 120


class NoWarmDbt(Exception):
    """There is no warm dbt process that takes commands; nothing was started."""


def run_warm(
    path: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    say: Callable[[str], None],
    start_seconds: float = START_SECONDS,
) -> int:
    """Run dbt in a child of the warm process.

    Args:
        path: The warm process's socket.
        arguments: What follows ``dbt`` on a command line.
        environment: The command's whole environment.
        say: Called with each line of dbt's output.
        start_seconds: How long to wait for a process that is still warming.

    Returns:
        dbt's exit status.

    Raises:
        NoWarmDbt: Nothing was started: the caller may run the command by itself.
        DbtRunError: The process died in the middle of the command.
    """
    request = json.dumps({"arguments": list(arguments), "environment": dict(environment)})
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as answers:
        connection.settimeout(start_seconds)
        with os.fdopen(_ask(connection, path, request, answers), "rb") as output:
            connection.settimeout(None)
            for line in output:
                say(line.decode(errors="replace").rstrip())
        return _status(answers)


def _ask(connection: socket.socket, path: Path, request: str, answers: BinaryIO) -> int:
    """Send the request and wait until it is taken; returns the end to read dbt's output from."""
    reader, writer = os.pipe()
    try:
        connection.connect(str(path))
        socket.send_fds(connection, [b"\n"], [writer])
        connection.sendall(request.encode() + b"\n")
        if not answers.readline():
            raise ConnectionError("it ended before the command started")
    except OSError as error:
        os.close(reader)
        raise NoWarmDbt(f"{path}: {error}") from None
    finally:
        os.close(writer)
    return reader


def _status(answers: BinaryIO) -> int:
    last = b""
    with suppress(ConnectionError):
        last = answers.readline()
    if not last:
        raise DbtRunError("the dbt process died before it ended; was it killed, out of memory?")
    return int(json.loads(last)["status"])
