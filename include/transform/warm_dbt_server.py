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
import io
import json
import logging
import multiprocessing
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from include.errors import LocalError
from include.process import end_with_parent
from include.settings import ROOT
from include.transform.dbt_command import project_options
from include.transform.dbt_program import (
    FAILED,
    invoke,
    make_flags_light,
    make_locks_light,
    make_results_safe,
)
from include.transform.project_files import project_files
from include.transform.scratch import scratch
from include.transform.warm_dbt import SERVER, NoWarmDbt, locked

log = logging.getLogger(__name__)
CANCEL_SECONDS = 30
TICK_SECONDS = 1
REQUEST_SECONDS = 10
PARSE_SECONDS = 600
INTERRUPTED = 130
UNSET = "DBT_DEFAULT_PLACEHOLDER"  # what dbt remembers of a variable that was not there

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


def warm_up(project: Path, runtime: Path, not_for_parser: Sequence[socket.socket]) -> Any:
    """Import dbt and parse the project.

    Args:
        project: The folder of ``dbt_project.yml``.
        runtime: The folder of the socket.
        not_for_parser: What the parsing process must not keep open.

    Returns:
        dbt's Manifest, or None where the project does not parse: then each command parses it
        and says what is wrong.

    Raises:
        LocalError: The process that parses was killed.
    """
    make_results_safe()
    make_locks_light()
    make_flags_light()
    import dbt.adapters.snowflake
    import dbt.task.run
    import dbt.task.seed
    import dbt.task.snapshot
    import dbt.task.test  # noqa: F401
    from dbt.contracts.graph.manifest import Manifest

    _parse_again_where_it_matters()
    # dbt's parser leaves threads running, which a forked child would wait for in vain.
    fork = multiprocessing.get_context("fork")
    reader, writer = fork.Pipe(duplex=False)
    parser = fork.Process(target=_parse, args=(project, runtime, writer, [reader, *not_for_parser]))
    parser.start()
    writer.close()
    parts = None
    with reader:
        try:
            if reader.poll(PARSE_SECONDS):
                parts = reader.recv()
        except (EOFError, OSError):  # it ended before it wrote, or while it did
            parser.join()
            if parser.exitcode == -signal.SIGKILL:
                raise LocalError("the process that parses was killed; out of memory?") from None
    parser.kill()  # it has nothing left to do, or has hung
    parser.join()
    if not parts:
        return None
    manifest = _ready(Manifest(**parts))
    _rehearse(project, runtime, manifest)
    return manifest


def _rehearse(project: Path, runtime: Path, manifest: Any) -> None:
    """Run a command that needs no connection: what dbt then remembers, each fork has.

    Most of what is left of a command's start are schemas and serializers that dbt makes of its
    classes when they are first used, and a search for plugins among all modules.
    """
    from dbt.cli.main import dbtRunner
    from dbt.plugins.manager import PluginManager

    plugins = PluginManager.get_prefixed_modules()
    PluginManager.get_prefixed_modules = lambda: plugins
    with scratch(runtime) as folder:
        line = ["--quiet", "ls", *project_options(project), "--target-path", str(folder)]
        line += ["--log-path", str(folder), "--log-level-file", "none"]
        with redirect_stdout(io.StringIO()):
            dbtRunner(manifest=manifest).invoke(line)


def _ready(manifest: Any) -> Any:
    """Make what every command would make for itself: lookups, and macros as Python."""
    from dbt_common.clients.jinja import template_cache
    from dbt_common.exceptions import DbtBaseException

    manifest.build_parent_and_child_maps()
    for lookup in ("ref_lookup", "source_lookup", "disabled_lookup", "singular_test_lookup"):
        getattr(manifest, lookup)
    for macro in manifest.macros.values():
        with suppress(DbtBaseException):  # one that is broken matters where it is called
            template_cache.get_node_template(macro)
    return manifest


def _parse(project: Path, runtime: Path, writer: Any, not_ours: Sequence[Any]) -> None:
    end_with_parent()
    for inherited in not_ours:
        inherited.close()
    from dbt.cli.main import dbtRunner

    with scratch(runtime) as folder:
        options = [*project_options(project), "--target-path", str(folder)]
        options += ["--log-level-file", "none", "--no-partial-parse"]
        outcome = dbtRunner().invoke(["--quiet", "parse", *options])
    if not outcome.success:
        log.warning("%s does not parse: %s", project, outcome.exception)
        writer.send(None)
        return
    manifest = outcome.result
    # Not the manifest itself: dbt 1.11.16 forgets a field where it tells pickle how to rebuild it.
    parts = (field.name for field in fields(manifest) if not field.name.startswith("_"))
    writer.send({name: getattr(manifest, name) for name in parts})


def _parse_again_where_it_matters() -> None:
    """Have dbt's own test for reusing a parsed project made against each command's environment.

    Its query tag, which differs from task to task, is no part of how the project is parsed.
    """
    from dbt.adapters.snowflake.connections import SnowflakeCredentials
    from dbt.cli import requires

    keys = SnowflakeCredentials._connection_keys
    SnowflakeCredentials._connection_keys = lambda self: tuple(
        key for key in keys(self) if key != "query_tag"
    )

    original = requires.setup_manifest

    def setup_manifest(context: Any, *arguments: Any, **options: Any) -> Any:
        manifest = context.obj.get("manifest")
        if manifest and (changed := _changed(manifest, context.obj["runtime_config"])):
            sys.stdout.write(f"warm dbt: parsing again, for other {', '.join(changed)}\n")
            context.obj["manifest"] = None
        return original(context, *arguments, **options)

    requires.setup_manifest = setup_manifest


def _changed(manifest: Any, config: Any) -> list[str]:
    from dbt.parser.manifest import ManifestLoader

    loader: Any = SimpleNamespace(root_project=config, all_projects=config.load_dependencies())
    now = ManifestLoader.build_manifest_state_check(loader)
    then = manifest.state_check
    checks = {
        "vars": "vars_hash",
        "connection": "profile_hash",
        "project": "project_hashes",
        "project variables": "project_env_vars_hash",
    }
    changed = [name for name, key in checks.items() if getattr(now, key) != getattr(then, key)]
    return changed + [
        name for name, value in manifest.env_vars.items() if os.environ.get(name, UNSET) != value
    ]


def _read_request(connection: socket.socket) -> tuple[dict[str, Any], int]:
    """The request, and the pipe for dbt's output."""
    connection.settimeout(REQUEST_SECONDS)
    _, pipes, _, _ = socket.recv_fds(connection, 1, 1)
    text = b""
    while not text.endswith(b"\n"):
        part = connection.recv(1 << 16)
        if not part:
            raise ConnectionError("whoever asked went away")
        text += part
    connection.settimeout(None)
    return json.loads(text), pipes[0]


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

    Who is interrupted gives no answer: dbt's status would blame the project.
    """
    status, done, interrupted = 0, threading.Event(), threading.Event()
    try:
        for stream in (1, 2):
            os.dup2(pipe, stream)
        os.close(pipe)
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
        project: The folder of ``dbt_project.yml``.
        lifeline: Both ends of a pipe that nobody writes to: it breaks when this process dies,
            however it dies.
        idle: Seconds without a command after which it ends.
    """

    def __init__(
        self,
        listener: socket.socket,
        path: Path,
        project: Path,
        lifeline: tuple[int, int],
        idle: float,
    ) -> None:
        self._listener = listener
        self._path = path
        self._file = _identity(path)
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
            if _identity(self._path) != self._file:
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
            connection.sendall(b"started\n")
        except (OSError, ValueError, IndexError) as error:
            log.warning("no command: %s", error)
            return
        self._require_forkable(connection.fileno(), pipe)
        if os.fork() == 0:
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


def _identity(path: Path) -> tuple[int, int] | None:
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
    server = Server(listener, given.socket, given.project, lifeline, given.idle)
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
