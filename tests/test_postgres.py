from __future__ import annotations

import os
import signal
import socket
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from include.errors import LocalError
from include.local.postgres import COMPLETE, running

PASSWORD = "for-tests"


def one(server, statement, **options):
    with closing(server.connect(**options)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]


def test_data_survive_a_kill_and_a_half_made_folder_is_made_anew(tmp_path):
    data = tmp_path / "postgres"
    data.mkdir()
    (data / "PG_VERSION").write_text("18\n")
    with running(data, 0, PASSWORD) as server:
        with closing(server.connect()) as connection, connection, connection.cursor() as cursor:
            cursor.execute("create table kept as select 42 as answer")
        pid = int((data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
    with running(data, 0, PASSWORD) as server:
        assert one(server, "select answer from kept") == 42
        assert one(server, "show listen_addresses") == "127.0.0.1"
    assert (data / COMPLETE).exists()


def test_a_wrong_password_is_refused(postgres):
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(
            host="127.0.0.1", port=postgres.port, user="airflow", password="no", dbname="airflow"
        )


def test_the_reader_cannot_write(shop):
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        one(shop, "delete from orders returning 1", user="shop_reader")


def test_a_taken_port_is_one_line_that_says_what_to_do(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(LocalError, match=f"port {port} is taken.*SLUICE_POSTGRES_PORT="),
            running(tmp_path / "postgres", port, PASSWORD),
        ):
            pass
    assert not Path(tmp_path / "postgres").exists()
