"""Child processes that never outlive the work they were started for."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from include.errors import LocalError, one_line
from include.settings import ROOT, child_environment

STOP_SECONDS = 30
PR_SET_PDEATHSIG = 1


@contextmanager
def child(
    command: Sequence[str | Path],
    environment: Mapping[str, str] | None = None,
    ended_by: signal.Signals = signal.SIGTERM,
    **options: Any,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program; at the end of the block it is ended if it still runs, and its pipes close.

    Args:
        command: The program and its arguments.
        environment: Variables to add to :func:`include.settings.child_environment`.
        ended_by: What asks it to end; 30 seconds later it is killed.
        options: For ``subprocess.Popen``.

    Raises:
        LocalError: The program is not there.
    """
    try:
        process = subprocess.Popen(
            [str(word) for word in command],
            env=child_environment(environment),
            cwd=ROOT,
            **options,
        )
    except FileNotFoundError:
        raise LocalError(f"{command[0]} is missing: run scripts/install.sh") from None
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(ended_by)
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()


def output_of(
    command: Sequence[object],
    seconds: float,
    environment: Mapping[str, str] | None = None,
    stdin: str = "",
) -> str:
    """Run a program to its end; returns its standard output.

    Args:
        command: The program and its arguments.
        seconds: How long it may take.
        environment: Variables to add to :func:`include.settings.child_environment`.
        stdin: Its standard input.

    Raises:
        LocalError: It is not there, or failed, with all that it said, or took longer: then all
            that it started is ended too; one line.
    """
    line = [str(word) for word in command]
    name = one_line(" ".join(line))
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with child(line, environment, process_group=0, **pipes) as process:
        try:
            said, wrong = process.communicate(stdin.encode(), seconds)
        except BaseException as error:  # Ctrl-C too: a terminal sends it to our own group only
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise LocalError(f"{name}: not done after {seconds} seconds; stopped") from None
            raise
    if process.returncode:
        raise LocalError(f"{name}: {one_line((said + wrong).decode())}")
    return said.decode()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that ``finally`` blocks run."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before: dict[int, Callable[..., object] | int | None] = {
        number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent(ended_by: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel for a signal when the parent dies; for a fresh child, on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ended_by)
