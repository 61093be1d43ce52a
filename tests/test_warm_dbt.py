"""The warm dbt process under what goes wrong around it: nobody waits for ever, nothing is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import psutil
import pytest
from conftest import running_warm_dbt, wait_until

from include.errors import DbtRunError
from include.local.ports import free_port
from include.settings import ROOT, child_environment, settings
from include.transform.dbt_command import run_dbt
from include.transform.warm_dbt import NoWarmDbt, run_warm

PARSE = ["parse", "--project-dir", str(ROOT / "dbt"), "--profiles-dir", str(ROOT / "dbt")]
SEED = ["seed", *PARSE[1:], "--select", "countries"]


@pytest.fixture
def warm_dbt(tmp_path, environment):
    with running_warm_dbt(tmp_path, environment) as socket:
        yield socket


def server_of(socket):
    for process in psutil.process_iter(["cmdline"]):
        if str(socket) in (process.info["cmdline"] or []) and process.parent().pid == os.getpid():
            return process
    raise AssertionError(f"nothing serves {socket}")


def commands_of(socket):
    def is_command(child):
        with suppress(psutil.NoSuchProcess):
            return "warm_dbt_server" in " ".join(child.cmdline())

    return [child for child in server_of(socket).children() if is_command(child)]


def options(tmp_path, number=0):
    folder = str(tmp_path / f"target-{number}")
    return ["--target-path", folder, "--log-path", folder, "--log-level-file", "none"]


def test_many_commands_at_once_asked_for_before_it_is_warm(warm_dbt, environment, tmp_path):
    whole = child_environment(environment)
    said = [[] for _ in range(8)]

    def ask(number):
        show = ["show", *PARSE[1:], "--inline", f"select {number + 100} as found"]
        return run_warm(warm_dbt, [*show, *options(tmp_path, number)], whole, said[number].append)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [0] * 8
    for number, lines in enumerate(said):
        assert f"{number + 100}" in "\n".join(lines)
        assert (tmp_path / f"target-{number}" / "run_results.json").exists()
    wait_until(lambda: not commands_of(warm_dbt))


def test_another_connection_or_variable_is_parsed_for(warm_dbt, environment, tmp_path):
    for changes, reason in (
        ({}, None),
        ({"SNOWFLAKE_DATABASE": "OTHER"}, "for other connection"),
        ({"SNOWFLAKE_USER": "other"}, "for other connection"),
    ):
        said = []
        whole = child_environment({**environment, **changes})
        command = [*PARSE, *options(tmp_path)]
        assert run_warm(warm_dbt, command, whole, said.append) == 0
        again = [line for line in said if "parsing again" in line]
        assert len(again) == (reason is not None)
        assert not reason or reason in again[0]


def test_changed_files_are_seen_and_who_waits_is_answered(tmp_path, environment, monkeypatch):
    root = tmp_path / "project"
    for name in ("include", "dbt"):
        shutil.copytree(ROOT / name, root / name)
    command = ["ls", "--project-dir", str(root / "dbt"), "--profiles-dir", str(root / "dbt")]
    command += ["--select", "tag:brand_new", *options(tmp_path)]
    whole = child_environment(environment)
    monkeypatch.setenv("SLUICE_VENVS", str(settings().venvs))
    with running_warm_dbt(tmp_path, environment, root) as socket:
        before, after = [], []
        assert run_warm(socket, command, whole, before.append) == 0
        assert not any("shop.newest" in line for line in before)
        sql = "{{ config(tags=['brand_new']) }} select 1 as one"
        (root / "dbt" / "models" / "newest.sql").write_text(sql)
        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(run_warm, socket, command, whole, after.append) for _ in "ab"]
            assert [one.result() for one in asked] == [0, 0]
        assert after.count("shop.newest") == 2
        broken = root / "dbt" / "models" / "broken.sql"
        broken.write_text("{{ ref('no_such_model') }}")
        said = []
        assert run_warm(socket, command, whole, said.append) == 2
        assert "no_such_model" in "\n".join(said)
        broken.unlink()
        assert run_warm(socket, command, whole, after.append) == 0


def test_a_command_that_runs_goes_on_while_the_project_changes(tmp_path, environment):
    root = tmp_path / "project"
    for name in ("include", "dbt"):
        shutil.copytree(ROOT / name, root / name)
    here = ["--project-dir", str(root / "dbt"), "--profiles-dir", str(root / "dbt")]
    listing = ["ls", *here, "--select", "countries", *options(tmp_path)]
    with Unanswered() as port, running_warm_dbt(tmp_path, environment, root) as socket:
        seed = ["seed", *here, "--select", "countries", *options(tmp_path, 1)]
        assert run_warm(socket, listing, child_environment(environment), print) == 0
        with asking(socket, seed, {**environment, **port}) as asker:
            wait_until(lambda: commands_of(socket))
            (command,) = commands_of(socket)
            (root / "dbt/models/newest.sql").write_text("select 1 as one")
            assert run_warm(socket, listing, child_environment(environment), print) == 0
            assert (command.is_running(), asker.poll()) == (True, None)
        wait_until(lambda: not command.is_running(), seconds=45)


class Unanswered:
    """A warehouse that takes connections and never says a word: whoever asks it, waits."""

    def __enter__(self):
        self.port = free_port()
        code = f"import socket, time; s = socket.create_server(('127.0.0.1', {self.port}))"
        command = [sys.executable, "-c", f"{code}; print(flush=True); time.sleep(600)"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._process.stdout.readline()
        return {"SNOWFLAKE_PORT": str(self.port)}

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


ASK = """
import sys
from pathlib import Path
from include.settings import child_environment
from include.transform.warm_dbt import run_warm
run_warm(Path(sys.argv[1]), sys.argv[2:], child_environment(), print)
"""


@contextmanager
def asking(socket, command, environment, number=signal.SIGKILL):
    """A process that asks for a command; ended with a signal."""
    line = [sys.executable, "-c", ASK, str(socket), *command]
    asker = subprocess.Popen(line, env=child_environment(environment), cwd=ROOT)
    try:
        yield asker
    finally:
        asker.send_signal(number)
        asker.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_who_asked_is_killed_and_its_command_ends(warm_dbt, environment, tmp_path, number):
    with Unanswered() as port:
        command = [*SEED, *options(tmp_path)]
        with asking(warm_dbt, command, {**environment, **port}, number):
            wait_until(lambda: commands_of(warm_dbt))
        wait_until(lambda: not commands_of(warm_dbt), seconds=45)


@pytest.mark.parametrize(
    ("warm", "error"), [(False, NoWarmDbt), (True, DbtRunError)], ids=["warming", "working"]
)
def test_a_server_that_is_killed_takes_its_children_with_it(tmp_path, environment, warm, error):
    def is_time():
        return commands_of(socket) and warm == ("warm after" in log.read_text())

    def kill():
        wait_until(is_time)
        children.extend(commands_of(socket))
        server_of(socket).kill()

    log, children = tmp_path / "warm_dbt.log", []
    with Unanswered() as port, running_warm_dbt(tmp_path, environment) as socket:
        whole = child_environment({**environment, **port})
        with ThreadPoolExecutor(1) as pool:
            killer = pool.submit(kill)
            with pytest.raises(error):
                run_warm(socket, [*SEED, *options(tmp_path)], whole, print)
            killer.result()
        socket.unlink()
        wait_until(lambda: not any(child.is_running() for child in children), seconds=45)
        assert children


def test_where_no_warm_dbt_answers_a_command_starts_its_own(tmp_path, environment, monkeypatch):
    gone = tmp_path / "gone.sock"
    with pytest.raises(NoWarmDbt):
        run_warm(gone, [], {}, print)
    monkeypatch.setenv("SLUICE_WARM_DBT", str(gone))
    (node,) = run_dbt("seed", ["fqn:shop.countries"], environment).nodes
    assert node.status == "success"
