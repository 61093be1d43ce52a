"""A machine for one journey: a folder and ports of its own, and who is on call for it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress

import psutil
from conftest import PASSWORD, wait_until

from include.errors import LocalError
from include.local.airflow import Secrets, api
from include.local.ports import free_port
from include.settings import ROOT, child_environment, settings

COMMAND_SECONDS = 400
MAKE_SECONDS = 300
RUN_SECONDS = 300
PAGE = 100  # the most that Airflow's API gives at once


def copy_of_the_repository(folder, *without):
    """Copy what git tracks, or would, but for the top-level folders named."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in done.stdout.splitlines():
        if name.partition("/")[0] not in without and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


class Machine:
    """A folder and ports of its own for everything that the make commands start.

    Args:
        folder: For state and logs.
        root: The project; its environments are this repository's.
    """

    def __init__(self, folder, root=ROOT):
        self.root = root
        self.folder = folder / "local"
        self.ports = {name: free_port() for name in ("POSTGRES", "SNOWFLAKE", "AIRFLOW")}
        self.environment = child_environment(
            {f"SLUICE_{name}_PORT": str(port) for name, port in self.ports.items()}
            | {"SLUICE_LOCAL": str(self.folder), "SHOP_SCALE": "0.02"}
            | {"SLUICE_VENVS": str(settings().venvs), "PYTHONPATH": str(root)}
        )

    def start(self, command, output):
        python = str(settings().program("airflow", "python"))
        return subprocess.Popen(
            [python, "-m", "scripts.local", command],
            env=self.environment,
            cwd=self.root,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def script(self, module, *line, environment="airflow"):
        """A script of this machine's, run to its end."""
        python = str(settings().program(environment, "python"))
        return subprocess.run(
            [python, "-m", module, *line],
            env=self.environment,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def make(self, target):
        """`make TARGET`, which has to do well."""
        done = subprocess.run(
            ["make", "--no-print-directory", target],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=MAKE_SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, command):
        """(exit status, output) of a command that starts or ends what is local."""
        log = self.folder.parent / f"{command}.log"
        with log.open("wb") as output:
            process = self.start(command, output)
        deadline = time.monotonic() + COMMAND_SECONDS
        while process.poll() is None:
            assert time.monotonic() < deadline, log.read_text()
            assert PASSWORD not in self.command_lines()
            time.sleep(0.3)
        return process.returncode, log.read_text()

    def command_lines(self):
        """Those of all processes of this folder, in one text."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                found.append(" ".join(process.cmdline()))
        return "\n".join(found)

    def kill_in(self, command, line):
        """Start a command, and kill its whole process group once it has printed a line."""
        log = self.folder.parent / "killed.log"
        with log.open("wb") as output:
            process = self.start(command, output)
        wait_until(lambda: re.search(line, log.read_text()) or process.poll() is not None, 200)
        assert process.poll() is None, log.read_text()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def processes(self):
        """What runs for this folder: it is in the command line or in the environment."""
        found = []
        for process in psutil.process_iter():
            try:
                known = " ".join(process.cmdline()) + process.environ().get("SLUICE_LOCAL", "")
                if str(self.folder) in known and process.pid != os.getpid():
                    found.append(process)
            except psutil.Error:
                continue
        return found


class OnCall:
    """`make up`, seen through Airflow's API by whoever is on call."""

    def __init__(self, machine):
        self._client = api(machine.ports["AIRFLOW"], Secrets.of(machine.folder))
        self.call = self._client.call
        self.close = self._client.close

    def unpause(self, dag):
        self.call("PATCH", f"dags/{dag}", json={"is_paused": False})

    def trigger(self, dag, logical_date=None, **params):
        """The id of a new run."""
        body = {"logical_date": logical_date, "conf": params}
        return self.call("POST", f"dags/{dag}/dagRuns", json=body)["dag_run_id"]

    def fail(self, dag, run_id, task):
        """Mark a task as failed."""
        path = f"dags/{dag}/dagRuns/{run_id}/taskInstances/{task}"
        self.call("PATCH", path, json={"new_state": "failed"})

    def tasks(self, dag, run_id):
        """The task instances of a run."""
        path = f"dags/{dag}/dagRuns/{run_id}/taskInstances"
        found, known = [], 1
        while len(found) < known:
            page = self.call("GET", path, params={"limit": PAGE, "offset": len(found)})
            found, known = found + page["task_instances"], page["total_entries"]
        return found

    def states(self, dag, run_id):
        """Task id to state."""
        return {task["task_id"]: task["state"] for task in self.tasks(dag, run_id)}

    def log(self, dag, run_id, task, attempt=1):
        """A task's log, as text; Airflow does not know a task while it is being rescheduled."""
        path = f"dags/{dag}/dagRuns/{run_id}/taskInstances/{task}/logs/{attempt}"
        found = []

        def known():
            with suppress(LocalError):
                found.append(self.call("GET", path))
            return found

        wait_until(known)
        return json.dumps(found)

    def clear(self, dag, run_id, *tasks):
        """Have tasks and what waits for them run again; all failed tasks where none is named."""
        which = {"only_failed": not tasks}
        if tasks:
            which |= {"task_ids": tasks, "include_downstream": True}
        body = {"dry_run": False, "dag_run_id": run_id, "reset_dag_runs": True, **which}
        self.call("POST", f"dags/{dag}/clearTaskInstances", json=body)

    def wait(self, dag, run_id, seconds=RUN_SECONDS):
        """The run's end state and its tasks."""
        deadline = time.monotonic() + seconds
        while True:
            state = self.call("GET", f"dags/{dag}/dagRuns/{run_id}")["state"]
            if state in ("success", "failed"):
                return state, self.tasks(dag, run_id)
            assert time.monotonic() < deadline, self.states(dag, run_id)
            time.sleep(1)

    def wait_for_success(self, dag, run_id, seconds=RUN_SECONDS):
        """The tasks of a run that has to succeed; else the ends of its failed tasks' logs."""
        state, tasks = self.wait(dag, run_id, seconds)
        ends = [
            f"{task['task_id']}: {self.log(dag, run_id, task['task_id'], attempt)[-3000:]}"
            for task in tasks
            if task["state"] == "failed"
            for attempt in range(1, task["try_number"] + 1)
        ]
        assert state == "success", "\n".join(ends)
        return tasks
