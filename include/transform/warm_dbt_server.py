"""A warm dbt: dbt imported and the project parsed once, a child forked for each command.

:mod:`include.transform.warm_dbt` starts it, in dbt's environment, on a socket that takes
connections already: who asks early waits until dbt is warm. When a file of the project or a
variable that it reads changes, the process starts over; it keeps those who wait and the commands
that run. A child ends when the process that asked for it goes away, or the server does. The server
ends when nobody has asked for a while, or when its socket is taken away.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from include.errors import LocalError
from include.settings import ROOT
from include.transform.dbt_program import CANCEL_SECONDS, FAILED, invoke
from include.transform.project_files import project_files
from include.transform.warm_dbt import SERVER, NoWarmDbt, locked
from include.transform.warm_project import UNSET, warm_up

log = logging.getLogger(__name__)
TICK_SECONDS = 1
REQUEST_SECONDS = 10
INTERRUPTED = 130

Fingerprint = tuple[tuple[str, int, int], ...]


def fingerprint(*roots: Path) -> Fingerprint:
    """(path, time of change in ns, bytes) of each file below some folders, sorted."""
    found = []
    for path in (path for root in roots for path in project_files(root)):
        with suppress(FileNotFoundError):  # an editor's, gone since it was listed
            facts = os.stat(path)  # noqa: PTH116
            found.append((path, facts.st_mtime_ns, facts.st_size))
    return tuple(sorted(found))


def _read_by_dbt(project: Path) -> Fingerprint:
    """The project's files, and the code that runs commands."""
    return fingerprint(project, Path(__file__).parent)


def _read_request(connection: socket.socket) -> tuple[dict[str, Any], int]:
    """The request, and the pipe for dbt's output."""
    connection.settimeout(REQUEST_SECONDS)
    _, (pipe,), _, _ = socket.recv_fds(connection, 1, 1)
    try:
        text = b""
        while not text.endswith(b"\n"):
            part = connection.recv(1 << 16)
            if not part:
                raise ConnectionError("whoever asked went away")
            text += part
        connection.settimeout(None)
        return json.loads(text), pipe
    except (OSError, ValueError):
        os.close(pipe)
        raise


def _end_with(
    connection: int, lifeline: int, is_done: Callable[[], bool], interrupted: threading.Event
) -> None:
    """End this process when whoever asked for it or the server goes away.

    dbt takes the interrupt, and cancels its queries.
    """
    select.select([connection, lifeline], [], [])
    if is_done():
        return
    interrupted.set()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(CANCEL_SECONDS)
    os._exit(INTERRUPTED)


def _run_and_exit(
    connection: socket.socket, lifeline: int, request: Any, pipe: int, manifest: Any
) -> None:
    """Run one command; in a forked child, never returns.

    It tells who asked that it starts. Interrupted, it gives no answer: dbt's status would blame the
    project.
    """
    status, done, interrupted = 0, threading.Event(), threading.Event()
    try:
        for stream in (1, 2):
            os.dup2(pipe, stream)
        os.close(pipe)
        connection.sendall(b"started\n")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(request["environment"])
        ends = (connection.fileno(), lifeline, done.is_set, interrupted)
        threading.Thread(target=_end_with, args=ends, daemon=True).start()
        status = invoke(request["arguments"], manifest)
    except BaseException as error:  # noqa: BLE001  (a child may never run on as a second server)
        sys.stdout.write(f"{type(error).__name__}: {error}\n")
        status = FAILED
        if isinstance(error, KeyboardInterrupt):
            interrupted.set()
    finally:
        done.set()
        with suppress(OSError):  # who asked has gone
            sys.stdout.flush()
        for stream in (1, 2):
            os.close(stream)
        if not interrupted.is_set():
            with suppress(OSError):
                connection.sendall(json.dumps({"status": status}).encode() + b"\n")
        os._exit(status)


class Server:
    """Takes commands on a socket until SIGTERM, or until nobody needs it.

    Args:
        listener: Bound and listening.
        path: Where it is bound.
        file: Which file that was, to an earlier form of this process; None for the first.
        project: The folder of ``dbt_project.yml``.
        lifeline: Both ends of a pipe that nobody writes to: it breaks when this process dies,
            however it dies.
        idle: Seconds without a command after which it ends.
    """

    def __init__(
        self,
        listener: socket.socket,
        path: Path,
        file: tuple[int, ...] | None,
        project: Path,
        lifeline: tuple[int, int],
        idle: float,
    ) -> None:
        self._listener = listener
        self._path = path
        self._file = file or _identity(path)
        self._lifeline, self._held = lifeline
        self._idle = idle
        self._project = project
        self._print = _read_by_dbt(self._project)
        self._manifest: Any = None
        self._asked: dict[str, str] = {}

    def serve(self, waiting: socket.socket | None = None) -> None:
        """Warm up, then fork a child for each request.

        Args:
            waiting: A connection that an earlier form of this process has accepted.

        Raises:
            LocalError: A thread or a connection is there that a fork would copy, or the process
                that parses was killed.
        """
        began = time.monotonic()
        self._manifest = warm_up(self._project, self._path.parent, [self._listener])
        log.info("warm after %.1f s", time.monotonic() - began)
        gc.collect()
        gc.freeze()
        self._require_forkable(*([waiting.fileno()] if waiting else []))
        connection = waiting or self._next()
        while connection:
            with connection:
                if _read_by_dbt(self._project) != self._print:
                    self._start_over("the project has changed", connection)
                self._answer(connection)
            connection = self._next()

    def _next(self) -> socket.socket | None:
        """The next connection, or None when it is time to end."""
        since = time.monotonic()
        self._listener.settimeout(TICK_SECONDS)
        while True:
            if _has_children():
                since = time.monotonic()
            with suppress(TimeoutError):
                return self._listener.accept()[0]
            if not self._file or _identity(self._path) != self._file:
                log.info("the socket was taken away: ending")
                return None
            if time.monotonic() - since > self._idle and self.leave():
                log.info("no command for %.0f s: ending", self._idle)
                return None

    def leave(self, *, though_asked: bool = False) -> bool:
        """Take the socket away, unless somebody has come to it; returns whether it did."""
        with suppress(NoWarmDbt, OSError), locked(self._path.parent):
            asked = bool(select.select([self._listener], [], [], 0)[0])
            if though_asked or not asked:
                if _identity(self._path) == self._file:
                    self._path.unlink()
                return True
        return False

    def _answer(self, connection: socket.socket) -> None:
        try:
            request, pipe = _read_request(connection)
        except (OSError, ValueError) as error:
            log.warning("no command: %s", error)
            return
        self._require_forkable(connection.fileno(), pipe)
        try:
            is_child = os.fork() == 0
        except OSError as error:  # no memory, or too many processes: who asked hears nothing
            log.warning("no command: %s", error)
            os.close(pipe)
            return
        if is_child:
            self._listener.close()
            os.close(self._held)
            _run_and_exit(connection, self._lifeline, request, pipe, self._manifest)
        os.close(pipe)
        if self._has_come_to_stay(request["environment"]):
            os.environ.clear()
            os.environ.update(request["environment"])
            self._start_over("variables that the project reads have changed")

    def _has_come_to_stay(self, environment: dict[str, str]) -> bool:
        """Whether two commands in turn had the same values, others than the project was parsed for.

        A single command's own values are for its child, which parses the project again.
        """
        known = dict(self._manifest.env_vars) if self._manifest else {}
        asked = {name: environment.get(name, UNSET) for name in known}
        before, self._asked = self._asked, asked
        return asked == before != known

    def _start_over(self, why: str, waiting: socket.socket | None = None) -> None:
        log.info("%s: starting over", why)
        kept = {
            "--listener": self._listener.fileno(),
            "--lifeline": self._lifeline,
            "--held": self._held,
        }
        if waiting:
            kept["--waiting"] = waiting.fileno()
        command = [sys.executable, "-P", "-m", SERVER, "--socket", str(self._path)]
        command += ["--project", str(self._project), "--idle", str(self._idle)]
        command += ["--file", *map(str, self._file)] if self._file else []
        for option, number in kept.items():
            os.set_inheritable(number, True)
            command += [option, str(number)]
        os.execv(sys.executable, command)  # noqa: S606  (no shell is what we want)

    def _require_forkable(self, *ours: int) -> None:
        """See that a fork copies no thread, no lock of one, and no connection.

        Raises:
            LocalError: It would.
        """
        if (threads := _threads()) > 1:
            raise LocalError(f"{threads} threads run where a fork would copy one of them")
        if others := _sockets() - {self._listener.fileno(), *ours}:
            raise LocalError(f"{len(others)} connections are open where a fork would copy them")


def _identity(path: Path) -> tuple[int, ...] | None:
    """Which file a path is, among all that it ever was."""
    with suppress(FileNotFoundError):
        facts = path.stat()
        return facts.st_ino, facts.st_ctime_ns
    return None


def _has_children() -> bool:
    """Whether a command runs; clears ended ones away."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True
    return False


def _sockets() -> set[int]:
    """The sockets that this process has open, where Linux tells."""
    found, folder = set(), Path("/proc/self/fd")
    for entry in folder.iterdir() if folder.exists() else ():
        with suppress(OSError):  # the one that lists the folder
            if str(entry.readlink()).startswith("socket:"):
                found.add(int(entry.name))
    return found


def _threads() -> int:
    """The threads of this process, those of libraries in C or Rust too where Linux tells."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()


def _close_all_but(*kept: int | None) -> None:
    """Close what was open in the process that started this one.

    What a task has open may be inheritable: its supervisor's sockets would stay open when it dies,
    and sockets that are not ours forbid a fork.
    """
    for name in os.listdir("/dev/fd"):  # noqa: PTH208  (its entries are no paths to anything)
        number = int(name)
        if number > 2 and number not in kept:
            with suppress(OSError):  # the one that lists the folder
                os.close(number)


def main() -> int:
    """Serve until SIGTERM or the idle end, then take the socket away."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--idle", type=float, required=True, help="seconds")
    parser.add_argument("--listener", type=int, required=True)
    parser.add_argument("--file", type=int, nargs=2)
    for kept in ("--waiting", "--lifeline", "--held"):
        parser.add_argument(kept, type=int)
    given = parser.parse_args()
    _close_all_but(given.listener, given.waiting, given.lifeline, given.held)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.chdir(ROOT)
    owner = os.getpid()
    listener = socket.socket(fileno=given.listener)
    waiting = None if given.waiting is None else socket.socket(fileno=given.waiting)
    lifeline = os.pipe() if given.held is None else (given.lifeline, given.held)
    file = tuple(given.file) if given.file else None
    server = Server(listener, given.socket, file, given.project, lifeline, given.idle)
    try:
        server.serve(waiting)
    except LocalError as error:
        log.error("%s", error)
        return 1
    finally:
        if os.getpid() == owner:
            server.leave(though_asked=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
