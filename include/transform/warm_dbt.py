"""Have the warm dbt process run a command; it is :mod:`include.transform.warm_dbt_server`.

It starts by itself: whoever finds nobody listening makes the socket, under a lock, and gives it to
a new process; who asks before it is warm waits in the socket's queue. There is one process on a
machine for each user, project and connection: its socket's name is made of them, without secrets.

The request is one line of JSON, sent with the write end of a pipe. Two lines come back: one when
the command starts, one with dbt's exit status when it has ended; what dbt says comes through the
pipe. Whoever asks and goes away, however it goes, ends the command.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socket import AF_UNIX, send_fds
from socket import socket as Socket
from typing import BinaryIO, Self

from include.connections import which_connection
from include.errors import DbtRunError
from include.settings import Settings, child_environment

WARM_SECONDS = 300
LOCK_SECONDS = 20
DIED = "the dbt process died before it ended; was it killed, out of memory?"
SERVER = "include.transform.warm_dbt_server"


class NoWarmDbt(Exception):
    """No warm dbt process takes commands; nothing was started."""


@dataclass(frozen=True)
class WarmDbt:
    """The warm dbt process of one project and connection on this machine; it need not run.

    Attributes:
        socket: Where it listens; its log lies beside it.
        command: Starts it.
        environment: A command's whole environment.
    """

    socket: Path
    command: tuple[str, ...]
    environment: Mapping[str, str]

    @classmethod
    def of(cls, environment: Mapping[str, str], here: Settings) -> Self:
        """The process for a project's commands.

        Args:
            environment: What ``profiles.yml`` reads, beside this process's own environment.
            here: Where the project, dbt's environment and the sockets are.
        """
        root, project = str(here.root), str(here.dbt_project)
        python = str(here.program("dbt", "python"))
        public = which_connection(environment)
        which = json.dumps([root, project, python, public], sort_keys=True).encode()
        path = here.runtime / f"dbt-{hashlib.sha256(which).hexdigest()[:12]}.sock"
        # -P: no modules from wherever a task happens to work
        command = [python, "-P", "-m", SERVER, "--socket", str(path)]
        whole = {**child_environment(environment), "PYTHONPATH": root}
        command += ["--project", project, "--idle", str(here.warm_dbt_idle)]
        return cls(path, tuple(command), whole)

    @property
    def log(self) -> Path:
        """What the process itself says."""
        return self.socket.with_suffix(".log")

    def start(self) -> None:
        """Start it where it does not run; it warms up by itself.

        Raises:
            NoWarmDbt: It cannot be started.
        """
        self._connect().close()

    def run(self, arguments: Sequence[str], say: Callable[[str], None]) -> int:
        """Run dbt in a child of it.

        Args:
            arguments: What follows ``dbt`` on a command line.
            say: Called with each line of dbt's output.

        Returns:
            dbt's exit status.

        Raises:
            NoWarmDbt: Nothing was started: the caller may run the command by itself.
            DbtRunError: It died in the middle of the command.
        """
        whole = {"arguments": list(arguments), "environment": dict(self.environment)}
        request = json.dumps(whole).encode() + b"\n"
        deadline = time.monotonic() + WARM_SECONDS
        try:
            return self._ask(request, deadline, say)
        except NoWarmDbt:  # it was about to end, or was killed; a new one takes its place
            return self._ask(request, deadline, say)

    def _ask(self, request: bytes, deadline: float, say: Callable[[str], None]) -> int:
        with self._connect() as connection, connection.makefile("rb") as answers:
            connection.settimeout(max(1.0, deadline - time.monotonic()))
            with os.fdopen(self._begin(connection, request, answers), "rb") as output:
                connection.settimeout(None)
                for line in output:
                    say(line.decode(errors="replace").rstrip())
            return _status(answers)

    def _begin(self, connection: Socket, request: bytes, answers: BinaryIO) -> int:
        """Send the request and wait until it is taken; returns the end to read output from."""
        reader, writer = os.pipe()
        try:
            send_fds(connection, [b"\n"], [writer])
            connection.sendall(request)
            if not answers.readline():
                raise ConnectionError("it ended before the command started")
        except OSError as error:
            os.close(reader)
            raise self._none(error) from None
        finally:
            os.close(writer)
        return reader

    def _connect(self) -> Socket:
        try:
            require_private(self.socket.parent)
            if connection := self._connected():
                return connection
            with locked(self.socket.parent):
                if not (connection := self._connected()):  # else another has started it meanwhile
                    self._spawn()
            if connection := connection or self._connected():
                return connection
        except OSError as error:
            raise NoWarmDbt(f"{self.socket}: {error}") from None
        raise self._none("it ended at once")

    def _connected(self) -> Socket | None:
        connection = Socket(AF_UNIX)
        connection.settimeout(LOCK_SECONDS)
        try:
            connection.connect(str(self.socket))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return None
        except OSError:
            connection.close()
            raise
        return connection

    def _none(self, why: object) -> NoWarmDbt:
        lines = self.log.read_text(errors="replace").split("\n") if self.log.exists() else []
        last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
        return NoWarmDbt(f"{why}; {self.log} ends with: {last.strip()}")

    def _spawn(self) -> None:
        """Start the process in a session of its own, with its socket listening already."""
        with Socket(AF_UNIX) as listener:
            self.socket.unlink(missing_ok=True)
            listener.bind(str(self.socket))
            listener.listen(128)
            listener.set_inheritable(True)
            more = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            os.posix_spawn(
                self.command[0],
                [*self.command, "--listener", str(listener.fileno())],
                self.environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, self.log, more, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
            )


def require_private(folder: Path) -> None:
    """Make a folder where there is none, and see that it is this user's alone.

    Raises:
        NoWarmDbt: It is not.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise NoWarmDbt(f"{folder} is no folder of this user's alone (mode 700)")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only one who starts or ends a process of this folder.

    Raises:
        NoWarmDbt: It is held for too long.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _lock(descriptor):
            if time.monotonic() > deadline:
                raise NoWarmDbt(f"{folder} is locked for {LOCK_SECONDS} s")
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _status(answers: BinaryIO) -> int:
    last = b""
    with suppress(ConnectionError):
        last = answers.readline()
    if not last:
        raise DbtRunError(DIED)
    return int(json.loads(last)["status"])
