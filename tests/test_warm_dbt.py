"""The warm dbt process under what goes wrong around it: nobody waits for ever, nothing is left."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
from conftest import SMALL_PROJECT, serving, wait_until

from include.errors import DbtRunError
from include.local.ports import free_port
from include.settings import ROOT, child_environment, settings
from include.transform.dbt_command import DbtCommand, project_options, run_dbt
from include.transform.warm_dbt import NoWarmDbt, WarmDbt

HERE = project_options(SMALL_PROJECT)
PARSE = ["parse", *HERE]
SEED = ["seed", *HERE, "--select", "countries"]


@pytest.fixture(autouse=True)
def runtime(tmp_path_factory, monkeypatch):
    """A folder of its own for each test; what serves there ends when it goes away."""
    folder = tmp_path_factory.mktemp("r")
    folder.chmod(0o700)
    monkeypatch.setenv("SLUICE_RUNTIME", str(folder))
    monkeypatch.setenv("SLUICE_DBT_PROJECT", str(SMALL_PROJECT))
    yield folder
    log = "".join(path.read_text() for path in folder.glob("*.log"))
    shutil.rmtree(folder)
    wait_until(lambda: not serving(folder), seconds=60)
    assert "Traceback" not in log, log
    assert "where a fork would copy" not in log, log


@pytest.fixture
def warm_dbt(environment):
    return WarmDbt.of(environment, settings())


@pytest.fixture
def project(tmp_path):
    """A copy of the project, that a test may change; its settings."""
    root = tmp_path / "project"
    shutil.copytree(ROOT / "include", root / "include")
    shutil.copytree(SMALL_PROJECT, root / "dbt")
    return replace(settings(), root=root, dbt_project=root / "dbt")


def servers(folder):
    """The warm processes of a folder: those that no other of it has forked."""
    found = serving(folder)
    pids = {process.pid for process in found}
    return [process for process in found if process.ppid() not in pids]


def commands(folder):
    """The commands that run: what the warm processes have forked."""
    pids = {process.pid for process in servers(folder)}
    return [process for process in serving(folder) if process.pid not in pids]


def options(tmp_path, number=0):
    folder = str(tmp_path / f"target-{number}")
    return ["--target-path", folder, "--log-path", folder, "--log-level-file", "none"]


def log_of(folder):
    return "".join(path.read_text() for path in folder.glob("*.log"))


def is_warm(folder):
    return "warm after" in log_of(folder)


def test_commands_that_come_at_once_start_one_process_and_wait_for_it(warm_dbt, tmp_path, runtime):
    said = [[] for _ in range(32)]

    def ask(number):
        show = ["show", *HERE, "--inline", f"select {number + 100} as found"]
        return warm_dbt.run([*show, *options(tmp_path, number)], said[number].append)

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(ask, range(32))) == [0] * 32
    for number, lines in enumerate(said):
        assert f"{number + 100}" in "\n".join(lines)
        assert (tmp_path / f"target-{number}" / "run_results.json").exists()
    assert len(servers(runtime)) == 1
    assert log_of(runtime).count("warm after") == 1
    wait_until(lambda: not commands(runtime))


def test_it_ends_when_nobody_asks_and_starts_again(environment, tmp_path, runtime):
    warm_dbt = WarmDbt.of(environment, replace(settings(), warm_dbt_idle=1))
    assert warm_dbt.run([*PARSE, *options(tmp_path)], print) == 0
    (first,) = servers(runtime)
    wait_until(lambda: not servers(runtime))
    assert not warm_dbt.socket.exists()
    assert "no command for 1 s" in log_of(runtime)
    assert warm_dbt.run([*PARSE, *options(tmp_path)], print) == 0
    assert first not in servers(runtime)


def test_a_command_that_runs_is_no_idleness(environment, tmp_path, runtime):
    with Unanswered() as port:
        warm_dbt = WarmDbt.of({**environment, **port}, replace(settings(), warm_dbt_idle=0.5))
        with asking(warm_dbt, [*SEED, *options(tmp_path)]):
            wait_until(lambda: commands(runtime))
            time.sleep(3)
            assert servers(runtime)
        wait_until(lambda: not serving(runtime), seconds=45)


def test_it_holds_nothing_that_the_process_that_started_it_has_open(warm_dbt, tmp_path, runtime):
    reader, writer = os.pipe()
    ours, theirs = socket.socketpair()
    for inherited in (writer, theirs.fileno()):
        os.set_inheritable(inherited, True)
    assert warm_dbt.run([*PARSE, *options(tmp_path)], print) == 0
    assert servers(runtime)
    os.close(writer)
    theirs.close()
    for end in (reader, ours.fileno()):
        assert select.select([end], [], [], 0)[0], "somebody else has the other end open"
        assert os.read(end, 1) == b""
    os.close(reader)
    ours.close()


def test_killed_it_is_started_anew_by_the_next_command(warm_dbt, tmp_path, runtime):
    assert warm_dbt.run([*PARSE, *options(tmp_path)], print) == 0
    (server,) = servers(runtime)
    server.kill()
    assert warm_dbt.run([*PARSE, *options(tmp_path)], print) == 0
    assert [process.pid for process in servers(runtime)] != [server.pid]


def test_without_its_socket_it_ends(warm_dbt, runtime):
    warm_dbt.start()
    wait_until(lambda: is_warm(runtime))
    warm_dbt.socket.unlink()
    wait_until(lambda: not servers(runtime), seconds=5)
    assert "the socket was taken away" in log_of(runtime)


def test_two_connections_have_two_processes_and_a_new_password_has_none(
    environment, tmp_path, runtime
):
    for changes, processes in (
        ({}, 1),
        ({"SNOWFLAKE_DATABASE": "OTHER"}, 2),
        ({"DBT_ENV_SECRET_SNOWFLAKE_PASSWORD": "rotated"}, 2),
        ({"SNOWFLAKE_QUERY_TAG": '{"task_id": "another"}'}, 2),
    ):
        said = []
        warm_dbt = WarmDbt.of({**environment, **changes}, settings())
        assert warm_dbt.run([*PARSE, *options(tmp_path)], said.append) == 0
        assert not any("parsing again" in line for line in said)
        assert len(servers(runtime)) == processes


def test_variables_are_parsed_for_and_those_that_stay_only_once(
    project, environment, tmp_path, runtime
):
    sql = "select '{{ env_var('FLAVOUR') }}' as flavour, {{ var('size', 1) }} as size"
    (project.root / "dbt/models/flavour.sql").write_text(sql)
    compile_it = ["compile", *project_options(project.dbt_project), "--select", "flavour"]

    def ask(flavour, *more):
        said = []
        warm_dbt = WarmDbt.of(environment, project)
        changed = {**warm_dbt.environment, "FLAVOUR": flavour}
        line = [*compile_it, *more, *options(tmp_path)]
        assert replace(warm_dbt, environment=changed).run(line, said.append) == 0
        told = "\n".join(said)
        assert f"'{flavour}' as flavour" in told
        return told

    assert "parsing again" not in ask("plum")
    assert "parsing again, for other vars" in ask("plum", "--vars", "{size: 2}")
    assert "parsing again, for other FLAVOUR" in ask("fig")
    assert "parsing again" not in ask("plum")
    assert "parsing again" in ask("fig")
    assert "parsing again" in ask("fig")
    assert "parsing again" not in ask("fig")
    assert log_of(runtime).count("starting over") == 1


def test_changed_files_are_seen_and_who_waits_is_answered(project, environment, tmp_path):
    listing = ["ls", *project_options(project.dbt_project), "--select", "tag:brand_new"]
    listing += options(tmp_path)
    warm_dbt = WarmDbt.of(environment, project)
    before, after = [], []
    assert warm_dbt.run(listing, before.append) == 0
    assert not any("small.newest" in line for line in before)
    sql = "{{ config(tags=['brand_new']) }} select 1 as one"
    (project.dbt_project / "models" / "newest.sql").write_text(sql)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(warm_dbt.run, listing, after.append) for _ in "ab"]
        assert [one.result() for one in asked] == [0, 0]
    assert after.count("small.newest") == 2
    broken = project.dbt_project / "models" / "broken.sql"
    broken.write_text("{{ ref('no_such_model') }}")
    said = []
    assert warm_dbt.run(listing, said.append) == 2
    assert "no_such_model" in "\n".join(said)
    broken.unlink()
    assert warm_dbt.run(listing, after.append) == 0


def test_a_project_that_cannot_be_written_to_is_parsed(project, environment, tmp_path):
    def files():
        return set(project.dbt_project.rglob("*"))

    before = files()
    listing = ["ls", *project_options(project.dbt_project), *options(tmp_path)]
    assert WarmDbt.of(environment, project).run(listing, print) == 0
    assert files() == before


NO_SECOND_FORK = """
import errno, os

fork, forks = os.fork, []

def fork_or_fail():
    forks.append(None)
    if len(forks) == 2:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()

os.fork = fork_or_fail
"""


def test_a_fork_that_fails_ends_no_server_and_who_asked_asks_again(
    project, environment, tmp_path, runtime
):
    """The first fork is for the parser."""
    (project.root / "sitecustomize.py").write_text(NO_SECOND_FORK)
    warm_dbt = WarmDbt.of(environment, project)
    warm_dbt.start()
    (server,) = servers(runtime)
    listing = ["ls", *project_options(project.dbt_project), *options(tmp_path)]
    assert warm_dbt.run(listing, print) == 0
    assert "no command: [Errno 11] Resource temporarily unavailable" in log_of(runtime)
    assert servers(runtime) == [server]


def test_who_goes_away_while_asking_leaves_nothing_open(warm_dbt, tmp_path, runtime):
    def descriptors():
        (server,) = servers(runtime)
        return server.num_fds()

    assert warm_dbt.run([*PARSE, *options(tmp_path)], print) == 0
    wait_until(lambda: not commands(runtime))
    before = descriptors()
    reader, writer = os.pipe()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(warm_dbt.socket))
        socket.send_fds(connection, [b"\n"], [writer])
    wait_until(lambda: "whoever asked went away" in log_of(runtime))
    wait_until(lambda: descriptors() == before)
    os.close(reader)
    os.close(writer)


def test_models_that_wait_for_each_other_are_for_dbt_to_tell(
    project, environment, tmp_path, runtime
):
    for one, other in (("hen", "egg"), ("egg", "hen")):
        model = project.dbt_project / "models" / f"{one}.sql"
        model.write_text(f"select * from {{{{ ref('{other}') }}}}")
    said = []
    listing = ["ls", *project_options(project.dbt_project), *options(tmp_path)]
    assert WarmDbt.of(environment, project).run(listing, said.append) == 2
    assert "Found a cycle: model.small" in said[-1]
    assert "commands will take longer: Found a cycle" in log_of(runtime)


def test_a_command_that_runs_goes_on_while_the_project_changes(
    project, environment, tmp_path, runtime
):
    here = project_options(project.dbt_project)
    listing = ["ls", *here, "--select", "countries", *options(tmp_path)]
    seed = ["seed", *here, "--select", "countries", *options(tmp_path, 1)]
    with Unanswered() as port:
        warm_dbt = WarmDbt.of({**environment, **port}, project)
        assert warm_dbt.run(listing, print) == 0
        with asking(warm_dbt, seed) as asker:
            wait_until(lambda: commands(runtime))
            (command,), (server,) = commands(runtime), servers(runtime)
            (project.dbt_project / "models/newest.sql").write_text("select 1 as one")
            assert warm_dbt.run(listing, print) == 0
            assert (command.is_running(), asker.poll()) == (True, None)
            assert [process.pid for process in servers(runtime)] == [server.pid]
            assert "open where a fork" not in log_of(runtime)
        wait_until(lambda: not commands(runtime), seconds=45)


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
import json, sys
from pathlib import Path
from include.transform.warm_dbt import WarmDbt
job = json.load(sys.stdin)
WarmDbt(Path(job["socket"]), tuple(job["command"]), job["environment"]).run(job["line"], print)
"""


@contextmanager
def asking(warm_dbt, line, number=signal.SIGKILL):
    """A process that asks for a command; ended with a signal."""
    job = {"socket": str(warm_dbt.socket), "command": warm_dbt.command, "line": line}
    job["environment"] = dict(warm_dbt.environment)
    command = [sys.executable, "-c", ASK]
    environment = child_environment()
    asker = subprocess.Popen(command, env=environment, cwd=ROOT, stdin=subprocess.PIPE)
    try:
        asker.stdin.write(json.dumps(job).encode())
        asker.stdin.close()
        yield asker
    finally:
        asker.send_signal(number)
        asker.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_who_asked_is_killed_and_its_command_ends(environment, tmp_path, runtime, number):
    with Unanswered() as port:
        warm_dbt = WarmDbt.of({**environment, **port}, settings())
        with asking(warm_dbt, [*SEED, *options(tmp_path)], number):
            wait_until(lambda: commands(runtime) and is_warm(runtime))
        wait_until(lambda: not commands(runtime), seconds=45)


def test_a_server_that_is_killed_takes_its_commands_with_it(environment, tmp_path, runtime):
    def kill():
        wait_until(lambda: commands(runtime) and is_warm(runtime))
        (server,) = servers(runtime)
        server.kill()

    with Unanswered() as port, ThreadPoolExecutor(1) as pool:
        warm_dbt = WarmDbt.of({**environment, **port}, settings())
        killer = pool.submit(kill)
        with pytest.raises(DbtRunError, match="the dbt process died before it ended"):
            warm_dbt.run([*SEED, *options(tmp_path)], print)
        killer.result()
        wait_until(lambda: not serving(runtime), seconds=45)


def test_a_server_that_is_killed_while_it_warms_is_started_again(warm_dbt, tmp_path, runtime):
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(warm_dbt.run, [*PARSE, *options(tmp_path)], print)
        wait_until(lambda: servers(runtime))
        (server,) = servers(runtime)
        server.kill()
        assert asked.result() == 0


def test_a_parser_that_is_killed_ends_its_server_and_who_waits_starts_another(
    warm_dbt, tmp_path, runtime
):
    warm_dbt.start()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(warm_dbt.run, [*PARSE, *options(tmp_path)], print)
        wait_until(lambda: commands(runtime))
        (server,), (parser,) = servers(runtime), commands(runtime)
        parser.kill()
        assert waiting.result(120) == 0
    assert server not in servers(runtime), "it would parse again for each command"
    assert "the process that parses was killed; out of memory?" in log_of(runtime)


class TestWithoutOne:
    def test_a_folder_that_others_can_read_is_refused(self, warm_dbt, runtime):
        runtime.chmod(0o755)
        with pytest.raises(NoWarmDbt, match=r"no folder of this user's alone \(mode 700\)"):
            warm_dbt.run([], print)

    def test_one_that_cannot_start_says_why(self, warm_dbt, runtime):
        line = ["/bin/sh", "-c", "echo 'no module named dbt' >&2; exit 1"]
        with pytest.raises(NoWarmDbt, match="ends with: no module named dbt"):
            replace(warm_dbt, command=tuple(line)).run([], print)

    def test_a_command_starts_its_own(self, environment, monkeypatch, runtime, caplog):
        runtime.chmod(0o755)
        (node,) = run_dbt(DbtCommand("seed", ("fqn:small.countries",)), environment).nodes
        assert node.status == "success"
        assert "no warm dbt, starting one of its own" in caplog.text
