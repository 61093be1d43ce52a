"""The make commands that run Sluice on this machine: demo, up, down, status."""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from rich.console import Console

from include.errors import LocalError, SluiceError
from include.local import airflow, demo
from include.local.ports import answers as port_answers
from include.local.services import Services, end_tree
from include.local.stack import Stack
from include.process import ended_by_signals
from include.settings import Settings, load_local_environment, settings

UP_SECONDS = 300
console = Console(highlight=False, soft_wrap=True)


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold ``.local/lock`` while services run.

    Raises:
        LocalError: Another command holds it; the message says which process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise LocalError(
                f"another make demo or make up runs here (process {lock.read().strip()}); "
                "wait for it, or stop it with make down"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def run_demo(here: Settings, began: float) -> None:
    """Run ``elt_standard`` once and end everything that was started."""
    with _only_one(here.local), Stack(here) as stack:
        demo.run(stack, console)
    console.print(f"\n[bold green]done[/] in {time.time() - began:.0f} s, installation included")
    console.print(
        "next: make demo again (the shop's next day), make up (Airflow's UI), "
        "docs/make-it-yours.md (your own source)"
    )


def serve(here: Settings) -> None:
    """Keep all services running until SIGTERM; what ``up`` starts in the background."""
    with _only_one(here.local), Stack(here) as stack:
        stack.start_databases()
        stack.fill_shop()
        stack.start_airflow(triggerer=True, schedules=True)
        (here.local / "ready").touch()
        try:
            while True:
                stack.services.check()
                time.sleep(1)
        finally:
            (here.local / "ready").unlink(missing_ok=True)


def up(here: Settings) -> None:
    """Start ``serve`` in the background and wait until it is ready."""
    ready, log_file = here.local / "ready", here.local / "logs" / "up.log"
    if not (_supervisor(here) and ready.exists()):
        _start_server(ready, log_file)
    secrets = airflow.Secrets.of(here.local)
    console.print(f"Airflow: http://127.0.0.1:{here.airflow_port}")
    console.print(f"log in as {airflow.LOGIN} with the password {secrets.admin_password}")
    dag = "elt_standard" if here.has_shop else "a DAG"
    console.print(f"next: unpause {dag} there and trigger it; make down stops everything")


def _start_server(ready: Path, log_file: Path) -> None:
    log_file.parent.mkdir(parents=True, exist_ok=True)
    ready.unlink(missing_ok=True)
    with log_file.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.local", "serve"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with console.status("starting Postgres, the local Snowflake and Airflow"):
            _wait_until_ready(process, ready, log_file)
    except BaseException:  # Ctrl-C too: what is half started would run on
        end_tree(process.pid, seconds=60)
        raise


def _wait_until_ready(process: subprocess.Popen[bytes], ready: Path, log_file: Path) -> None:
    deadline = time.monotonic() + UP_SECONDS
    while not ready.exists():
        if process.poll() is not None:
            last = log_file.read_text().strip().splitlines()[-1:] or [f"see {log_file}"]
            raise LocalError(last[0].removeprefix("sluice: "))
        if time.monotonic() > deadline:
            raise LocalError(f"not ready after {UP_SECONDS} s; see {log_file.parent}")
        time.sleep(0.2)


def down(here: Settings) -> None:
    """Stop what ``up`` started, and what a killed command left."""
    supervisor = _supervisor(here)
    if supervisor:
        end_tree(supervisor, seconds=60)
    left = Services(here.local).end_leftovers()
    console.print("stopped" if supervisor or left else "nothing was running")


def _supervisor(here: Settings) -> int | None:
    lock = here.local / "lock"
    if not lock.exists():
        return None
    with lock.open("a+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.seek(0)
            pid = int(held.read() or 0)
            return pid if psutil.pid_exists(pid) else None
    return None


def status(here: Settings) -> None:
    """Print each service that runs, with its process id and port."""
    running = Services(here.local).recorded()
    for pid, name in running:
        console.print(f"{name:15} process {pid}")
    ports = {
        "Postgres": here.postgres_port,
        "Snowflake": here.snowflake_port,
        "Airflow": here.airflow_port,
    }
    for name, port in ports.items():
        answers = "answers" if port_answers(port) else "no answer"
        console.print(f"{name:15} 127.0.0.1:{port} {answers}")
    if not running:
        console.print("nothing runs; start with make up")


COMMANDS: dict[str, Callable[[Settings], None]] = {
    "serve": serve,
    "up": up,
    "down": down,
    "status": status,
}


def main() -> int:
    """Run one command; a failure is one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["demo", *sorted(COMMANDS)])
    parser.add_argument("--began", type=float, default=time.time(), help="seconds since 1970")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    load_local_environment()
    try:
        with ended_by_signals():
            if given.command == "demo":
                run_demo(settings(), given.began)
            else:
                COMMANDS[given.command](settings())
    except SluiceError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"sluice: {error}")
        return 1
    except OSError as error:
        Console(stderr=True, soft_wrap=True).print(f"sluice: {error} (disk full? df -h .)")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
