"""Canaries: passwords, a salt and personal data are planted; then everything is searched."""

from __future__ import annotations

import gzip
import logging
import threading
from contextlib import closing, suppress
from dataclasses import replace
from uuid import uuid4

import psutil
import pytest
from conftest import FileStore

from include.connections import PostgresConnection
from include.errors import ExtractError
from include.extract_load.source import Source, Stream
from include.extract_load.steps import Steps
from include.local.postgres import running

PASSWORD, WAREHOUSE, SALT = (f"canary-{uuid4().hex}" for _ in range(3))
PERSONAL = {"email": "canary@example.org", "name": "Canary Bird", "phone": "0190-canary"}
MASKS = {"email": "redact", "name": "hash", "phone": "drop"}
TABLE = f"""
create table people (id int primary key, born date, email text, name text, phone text);
insert into people values (1, '1990-01-01', '{"', '".join(PERSONAL.values())}');
grant select on people to shop_reader;
"""


class Search(threading.Thread):
    """Looks at command lines, environments and temporary files until it is told to end."""

    def __init__(self, words, folder):
        super().__init__(daemon=True)
        self.words, self.folder = words, folder
        self.found, self.seen, self.done = set(), 0, threading.Event()

    def run(self):
        while not self.done.wait(0.02):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    text = " ".join([*process.cmdline(), *process.environ().values()])
                    self.look(process.name(), text)
            for file in self.folder.rglob("*"):
                with suppress(OSError):
                    self.look(file, file.read_text(errors="replace"))

    def look(self, place, text):
        self.seen += 1
        self.found |= {(place, word) for word in self.words if word in text}


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    with running(tmp_path_factory.mktemp("source") / "postgres", 0, PASSWORD) as server:
        with closing(server.connect()) as connection, connection, connection.cursor() as cursor:
            cursor.execute(TABLE)
        yield server


@pytest.fixture(scope="module")
def people(database):
    return replace(PostgresConnection.local(database.port, PASSWORD), mask_salt=SALT)


@pytest.mark.parametrize("fast", [False, True])
def test_no_secret_and_no_masked_value_is_anywhere(
    people, local_snowflake, tmp_path, monkeypatch, caplog, fast
):
    monkeypatch.setenv("SLUICE_SPOOL", str(tmp_path / "spool"))
    caplog.set_level(logging.DEBUG)
    words = [PASSWORD, WAREHOUSE, SALT, *PERSONAL.values()]
    stream = Stream("people", "public.people", masks=MASKS, fast=fast)
    source = Source("shop", "", "", f"RAW_{fast}", (stream,))
    steps = Steps(source, stream, "run", FileStore(tmp_path / "store.json"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    search = Search(words, tmp_path / "tmp")
    search.start()
    try:
        results = [steps.extract(people)]
        results.append(steps.load(replace(local_snowflake.connection, password=WAREHOUSE)))
        with pytest.raises(ExtractError) as wrong:
            replace(steps, run_id="other").extract(replace(people, user="nobody"))
    finally:
        search.done.set()
        search.join()
    assert search.seen > 20 and not search.found
    spooled = b"".join(gzip.open(file).read() for file in (tmp_path / "spool").rglob("*.gz"))
    kept = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    raw = local_snowflake.rows(f"select * from raw_{fast}.people")
    everything = b"\n".join([*kept, spooled]).decode(errors="replace")
    everything += f"{caplog.text} {results} {wrong.value} {raw}"
    assert [word for word in words if word in everything] == []
    assert ("1990-01-01" in everything) and ("***" in everything)


def test_a_tap_that_breaks_says_nothing_personal(people, database, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SLUICE_SPOOL", str(tmp_path / "spool"))
    caplog.set_level(logging.DEBUG)
    with closing(database.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("create table future as select * from people")
        cursor.execute("update future set born = '12345-01-01'")
        cursor.execute("grant select on future to shop_reader")
    stream = Stream("future", "public.future", masks=MASKS)
    source = Source("shop", "", "", "RAW", (stream,))
    with pytest.raises(ExtractError, match="the tap ended with status") as broken:
        Steps(source, stream, "run", FileStore(tmp_path / "store.json")).extract(people)
    said = f"{caplog.text} {broken.value}"
    assert [word for word in (PASSWORD, SALT, *PERSONAL.values()) if word in said] == []
    assert "\n" not in str(broken.value)
