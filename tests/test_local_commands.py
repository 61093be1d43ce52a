"""The make commands where they cannot go on: one line that says what to do, and nothing left."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import closing

import pytest

from include.local.ports import free_port
from include.settings import ROOT, child_environment, settings


@pytest.fixture
def local(tmp_path):
    ports = {
        f"SLUICE_{name}_PORT": str(free_port()) for name in ("POSTGRES", "SNOWFLAKE", "AIRFLOW")
    }

    def run(command, folder=tmp_path / "local", **variables):
        python = settings().program("airflow", "python")
        environment = {"SLUICE_LOCAL": str(folder), **ports, **variables}
        done = subprocess.run(
            [python, "-m", "scripts.local", command],
            cwd=ROOT,
            env=child_environment(environment),
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.parametrize("command", [*["demo"] * settings().has_shop, "up"])
def test_a_taken_port(local, command):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        status, _, said = local(command, SLUICE_SNOWFLAKE_PORT=port)
    assert status == 1
    assert said == (
        f"sluice: snowflake: port {port} is taken by another program; "
        "end it, or choose another: SLUICE_SNOWFLAKE_PORT=<free port>\n"
    )
    assert local("down")[:2] == (0, "nothing was running\n")


def test_no_room_on_the_disk(local, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", small]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can be mounted by root only")
    try:
        status, _, said = local("demo", folder=small / "local")
    finally:
        subprocess.run(["umount", "-l", small], check=True)
    assert status == 1
    (line,) = said.splitlines()
    assert line.startswith(f"sluice: the disk is full: {small}/local has ")
    assert line.endswith("MB left; free 500 MB, then run the same command again")


def test_stand_ins_and_their_password_are_refused_outside_local_mode(local):
    status, _, said = local("demo", SLUICE_ENV="prod")
    assert status == 1
    assert said == (
        "sluice: SLUICE_ENV is not 'local': the local stand-ins and their password are refused\n"
    )


@pytest.mark.parametrize("key", ["SLUICE_POSTGRES_PORT", "SHOP_SCALE"])
def test_a_setting_that_is_no_number(local, key):
    status, _, said = local("status", **{key: "many"})
    assert status == 1
    assert said.startswith(f"sluice: {key}='many': expected a number, e.g. ")


def test_status_and_down_where_nothing_runs(local):
    status, said, _ = local("status")
    assert status == 0
    assert said.endswith("nothing runs; start with make up\n")
    assert local("down") == (0, "nothing was running\n", "")
