"""Local services: started in order, watched, ended together, none left behind.

Each service is a session of its own, and its process id is on disk. A guard, which runs for as long
as services do, ends them when the command that started them dies, however it dies; what a killed
guard leaves, the next command ends.
"""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from include.errors import LocalError
from include.local.ports import answers, require_free
from include.settings import child_environment

log = logging.getLogger(__name__)
STOP_SECONDS = 20


@dataclass(frozen=True)
class Service:
    """One process to run.

    Attributes:
        name: What people call it; also the name of its log file.
        command: The program and its arguments.
        environment: Its whole environment.
        port: The TCP port on 127.0.0.1 that answers once it is ready, or 0 for none.
        announces: What it prints once it is ready, where an open port is too early a sign.
        port_setting: The variable that chooses another port.
        ready_seconds: How long it may take until it is ready.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    port: int = 0
    port_setting: str = ""
    announces: str = ""
    ready_seconds: float = 60


def _last_line(log_file: Path) -> str:
    lines = log_file.read_text(errors="replace").split("\n") if log_file.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


class Services:
    """The running services of one local folder.

    Args:
        folder: Where process ids and logs are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._id = uuid.uuid4().hex
        self._logs = folder / "logs"
        self._register = folder / "services.json"
        self._running: list[tuple[Service, subprocess.Popen[bytes]]] = []
        self._guard: subprocess.Popen[bytes] | None = None
        self._sockets: Path | None = None

    @property
    def sockets(self) -> Path:
        """A folder for sockets, whose paths may have 107 bytes.

        When services stop, it is removed, and whoever serves in it is ended.
        """
        if not self._sockets:
            self._sockets = Path(tempfile.mkdtemp(prefix="sluice-"))
            self._write_register()
        return self._sockets

    def start(self, *services: Service) -> None:
        """Start services side by side and wait until all of them are ready.

        Raises:
            LocalError: A port is taken, or a service ended, or it was not ready in time.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        self._guard = self._guard or self._start_guard()
        started = [(service, self._spawn(service)) for service in services]
        for service, process in started:
            self._wait_until_ready(service, process)

    def _spawn(self, service: Service) -> subprocess.Popen[bytes]:
        if service.port:
            require_free(service.name, service.port, service.port_setting)
        with self._log_of(service).open("wb") as output:
            process = subprocess.Popen(
                list(service.command),
                env=dict(service.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append((service, process))
        self._write_register()
        return process

    def _start_guard(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "include.local.services", str(self._folder), self._id],
            env=child_environment(),
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def _wait_until_ready(self, service: Service, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + service.ready_seconds
        while not self._is_ready(service):
            self._raise_if_ended(service, process)
            if time.monotonic() > deadline:
                raise LocalError(
                    f"{service.name}: not ready after {service.ready_seconds:.0f} s; "
                    f"see {self._log_of(service)}"
                )
            time.sleep(0.1)

    def _log_of(self, service: Service) -> Path:
        return self._logs / f"{service.name}.log"

    def _is_ready(self, service: Service) -> bool:
        if service.announces:
            return service.announces in self._log_of(service).read_text(errors="replace")
        return not service.port or answers(service.port)

    def _raise_if_ended(self, service: Service, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is not None:
            log_file = self._log_of(service)
            raise LocalError(
                f"{service.name} ended with status {process.returncode}: "
                f"{_last_line(log_file)} (whole log: {log_file})"
            )

    def check(self) -> None:
        """Raise if a service has ended.

        Raises:
            LocalError: Names the service, its exit status and its last line.
        """
        for service, process in self._running:
            self._raise_if_ended(service, process)

    def stop(self) -> None:
        """End every service, the last started first; what does not end in time is killed."""
        while self._running:
            _, process = self._running.pop()
            end_tree(process.pid)
            process.wait()
        self.end_leftovers()
        if self._guard:
            self._guard.communicate()
            self._guard = None

    def end_leftovers(self, started_by: str | None = None) -> list[str]:
        """End what an earlier command left behind.

        Args:
            started_by: Only what these services started; a guard must not end another's.

        Returns:
            The names of the services that were still running, in starting order.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "ending").open("w") as one_at_a_time:
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
            register = self._read_register()
            if started_by and register.get("id") != started_by:
                return []
            found = self.recorded()
            for pid, _ in reversed(found):
                end_tree(pid)
            if register.get("sockets"):
                _end_servers(register["sockets"])
                shutil.rmtree(register["sockets"], ignore_errors=True)
            self._register.unlink(missing_ok=True)
            self._sockets = None
            return [name for _, name in found]

    def recorded(self) -> list[tuple[int, str]]:
        """(process id, name) of the recorded services that run, in starting order."""
        entries = self._read_register().get("services", [])
        return [(e["pid"], e["name"]) for e in entries if _started_at(e["pid"]) == e["started"]]

    def _read_register(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._register.read_text()))
        except (FileNotFoundError, ValueError):
            return {}

    def _write_register(self) -> None:
        services = [
            {"name": s.name, "pid": p.pid, "started": _started_at(p.pid)} for s, p in self._running
        ]
        sockets = self._sockets and str(self._sockets)
        part = self._register.with_suffix(".part")
        register = {"id": self._id, "services": services, "sockets": sockets}
        part.write_text(json.dumps(register))
        part.replace(self._register)


def _started_at(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def _end_servers(folder: str) -> None:
    """End those whose command line names a file of a folder."""
    for process in psutil.process_iter(["cmdline"]):
        if any(word.startswith(f"{folder}/") for word in process.info["cmdline"] or ()):
            end_tree(process.pid)


def end_tree(pid: int, seconds: float = STOP_SECONDS) -> None:
    """End a process and all below it: SIGTERM to it, then to what it left, SIGKILL at last.

    Args:
        pid: The process id.
        seconds: How long it may take.
    """
    try:
        top = psutil.Process(pid)
        family = top.children(recursive=True)
        top.terminate()
    except psutil.NoSuchProcess:
        return
    psutil.wait_procs([top], timeout=seconds)
    _, alive = psutil.wait_procs([top, *family], timeout=1)
    for signal_to in (psutil.Process.terminate, psutil.Process.kill):
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                signal_to(process)
        _, alive = psutil.wait_procs(alive, timeout=5)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.touch(mode=0o600, exist_ok=True)
    part.write_text(text)
    part.replace(path)


def main() -> int:
    """Wait until standard input ends, which it does with its writer; then end what still runs."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.read()
    folder, started_by = sys.argv[1:]
    Services(Path(folder)).end_leftovers(started_by)
    return 0


if __name__ == "__main__":
    sys.exit(main())
