"""The tap, as a process: its files, its messages, its log."""

from __future__ import annotations

import collections
import fcntl
import json
import logging
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from subprocess import PIPE
from typing import IO, Any

from include.errors import ExtractError
from include.process import child
from include.settings import settings

log = logging.getLogger(__name__)
KEPT_LOG_LINES = 20
STOP_SECONDS, ENDED_SECONDS = 10, 1
PIPE_BYTES = 1024 * 1024
PAUSE_SECONDS = 0.02
LEVEL = re.compile(r"\blevel=(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")


class Tap:
    """A tap that has started and waits to be told what to read.

    Args:
        process: The tap.
        catalog: The end of a pipe that it reads its catalog from.
        state: The end of another, for its state.
    """

    def __init__(self, process: subprocess.Popen[bytes], catalog: IO[str], state: IO[str]) -> None:
        self._process = process
        self._catalog = catalog
        self._state = state
        self.was_told = False

    def read(self, catalog: Mapping[str, Any], state: Mapping[str, Any] | None) -> Iterator[bytes]:
        """Tell it what to read, and from where on; returns its messages, a line each."""
        self.was_told = True
        tell(self._catalog, catalog)
        tell(self._state, state or {})
        assert self._process.stdout  # noqa: S101  (it is a pipe)
        return _lines(self._process.stdout)


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a pipe, without their ends, read many at a time.

    The tap flushes every line: to wake a reader that waits for it took it a fifth of its time.
    """
    pause = PAUSE_SECONDS if _has_room(file) else 0
    rest = b""
    while data := _after(pause, file):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _after(pause: float, file: IO[bytes]) -> bytes:
    time.sleep(pause)
    return os.read(file.fileno(), PIPE_BYTES)


def _has_room(file: IO[bytes]) -> bool:
    """Whether a pipe could be made to hold what the tap writes during a pause."""
    try:
        return fcntl.fcntl(file, fcntl.F_SETPIPE_SZ, PIPE_BYTES) >= PIPE_BYTES
    except (AttributeError, OSError):  # no Linux, or its user has too many pipes
        return False


@contextmanager
def tap(
    config: Mapping[str, Any],
    secrets: Sequence[str],
    *,
    goes_on: bool,
    environment: Mapping[str, str],
) -> Iterator[Tap]:
    """Start the tap, which takes a while, before it is known what to read.

    All that it is told goes through pipes, never to a disk: its settings hold a password.

    Args:
        config: Its settings.
        secrets: What must not get into the log.
        goes_on: Whether it will be told a state.
        environment: Variables of its own.

    Raises:
        ExtractError: It ended with an error; the message has its last line.
    """
    said = _Log(secrets)
    with pipe() as (settings_, to_settings), pipe() as (catalog, to_catalog), pipe() as state:
        options = {"config": settings_, "catalog": catalog} | (
            {"state": state[0]} if goes_on else {}
        )
        command = [str(settings().program("tap-postgres", "tap-postgres"))]
        for option, number in options.items():
            command += [f"--{option}", f"/dev/fd/{number}"]
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": PIPE, "stderr": PIPE}
        pipes["pass_fds"] = list(options.values())
        # libpq takes the session's time zone from PGTZ: moments come in UTC, whatever the server's.
        with child(command, {"PGTZ": "UTC", **environment}, **pipes) as process:
            reader = threading.Thread(target=said.relay, args=(process.stderr,), daemon=True)
            reader.start()
            tell(to_settings, config)
            started = Tap(process, to_catalog, state[1])
            try:
                yield started
            except ExtractError:  # of what it did not say, most likely, for it had ended
                with suppress(subprocess.TimeoutExpired):
                    _raise_for_end(process, ENDED_SECONDS, reader, said)
                raise
            if started.was_told:
                _raise_for_end(process, STOP_SECONDS, reader, said)


def _raise_for_end(
    process: subprocess.Popen[bytes], seconds: float, reader: threading.Thread, said: _Log
) -> None:
    status = process.wait(seconds)
    reader.join(STOP_SECONDS)
    if status < 0:
        error = f"was killed by signal {-status}; memory may have run short"
    else:
        error = f"ended with status {status}: {said.reason}"
    if status:
        raise ExtractError(f"the tap {error}")


def tell(file: IO[str], content: Mapping[str, Any]) -> None:
    """Write JSON, less than a pipe holds, to the end of one, and close it."""
    with file:
        json.dump(content, file)


@contextmanager
def pipe() -> Iterator[tuple[int, IO[str]]]:
    """Both ends of a pipe: what a child reads from, and what this process writes to."""
    readable, writable = os.pipe()
    try:
        with os.fdopen(writable, "w") as file:
            yield readable, file
    finally:
        os.close(readable)


def redacted(text: str, secrets: Sequence[str]) -> str:
    """A text without secrets.

    >>> redacted("password=abc", ["abc", ""])
    'password=***'
    """
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return text


class _Log:
    """Relays a program's log at the levels it names, without secrets.

    Args:
        secrets: What is replaced.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = secrets
        self._last: collections.deque[str] = collections.deque(maxlen=KEPT_LOG_LINES)

    def relay(self, lines: IO[bytes]) -> None:
        """Log every line, until there are no more."""
        for raw in lines:
            line = redacted(raw.decode(errors="replace").rstrip(), self._secrets)
            self._last.append(line)
            named = LEVEL.search(line)
            level = logging.getLevelNamesMapping()[named[1]] if named else logging.INFO
            # The tap tells of every step; the task's log has what stands out.
            log.log(level if level > logging.INFO else logging.DEBUG, "tap: %s", line)

    @property
    def reason(self) -> str:
        """The last line that names an error."""
        said = [line for line in self._last if line.strip()]
        critical = [line for line in said if "CRITICAL" in line or "Error" in line]
        return (critical or said or ["it said nothing"])[-1]
