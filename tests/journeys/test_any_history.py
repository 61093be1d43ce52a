"""Whatever happens to a table, and however often it is run: the warehouse has what was promised.

Each history is drawn from its seed: columns of any type, rows that come, change and go, columns
that come, go and change their type, tables that are emptied or made anew, runs that are lost or
loaded twice. `make test` tries one of each method, `make chaos` many: SLUICE_HISTORIES and
SLUICE_CHAOS_SEED.
"""

from __future__ import annotations

import os
import random
from contextlib import closing

import pytest
from pipe import Pipe

from include.extract_load.reconcile import compare
from include.extract_load.source import Source, Stream

INCREMENTAL = {"replication": "incremental", "replication_key": "at"}
METHODS = {
    "full": {},
    "full-fast": {"fast": True},
    "keyless": {},
    "incremental": INCREMENTAL,
    "swept": {**INCREMENTAL, "deletes": "sweep"},
    "swept-fast": {**INCREMENTAL, "deletes": "sweep", "fast": True, "lookback": "1m"},
    "swept-marked": {**INCREMENTAL, "deletes": "sweep", "deleted_rows": "mark"},
    "log": {"replication": "log_based"},
    "log-marked": {"replication": "log_based", "deleted_rows": "mark"},
}
HISTORIES = int(os.environ.get("SLUICE_HISTORIES", len(METHODS)))
SEED = int(os.environ.get("SLUICE_CHAOS_SEED", "1"))
RUNS, MOST_CHANGES = 3, 8
# Type to values: the usual ones and those that hurt.
TYPES = {
    "smallint": ("-32768", "0", "7"),
    "integer": ("2147483647", "-1", "42"),
    "bigint": ("9223372036854775807", "0"),
    "real": ("1.5", "'NaN'", "-0.25"),
    "double precision": ("0.1", "1e300", "'-Infinity'"),
    "numeric(8, 2)": ("12.50", "-0.01", "999999.99"),
    "numeric(38, 10)": ("1234567890123456789012345678.0123456789", "0"),
    "numeric": ("1e-8", "12345678901234567890.5", "'NaN'"),
    "boolean": ("true", "false"),
    "bit(1)": ("B'1'", "B'0'"),
    "text": (
        r"E'tab\t line\n \\ \"quoted\" \u2028 \U0001F600'",
        "''",
        "'null'",
        "repeat('x', 9000)",
    ),
    "varchar(20)": ("'é'", "'%s'"),
    "char(5)": ("'ab'", "'12345'"),
    "uuid": ("'00000000-0000-0000-0000-000000000001'",),
    "money": ("1234.5",),
    "date": ("'2026-02-28'", "'0001-01-01'"),
    "timestamptz": ("'2026-01-31 12:00:00.123456+02'", "'0001-01-01 00:00:00+00'"),
    "timestamp": ("'2026-01-31 12:00:00.1'",),
    "time": ("'23:59:59.5'", "'00:00:00'"),
    "inet": ("'10.1.2.3'",),
    "json": ("""'{"a": [1, null], "b": 1.5}'""", "'[]'"),
    "jsonb": ("""'{"nested": {"price": 3}}'""", "'null'"),
    "integer[]": ("'{1,null,3}'", "array[]::integer[]"),
    "text[]": ("""'{"a,b",null,""}'""",),
}
# From a type to one that its values can be cast to.
CHANGES = {
    "smallint": ("integer", "text"),
    "integer": ("bigint", "text", "numeric"),
    "bigint": ("text",),
    "numeric(8, 2)": ("numeric(12, 2)", "numeric(12, 4)", "text"),
    "boolean": ("text",),
    "varchar(20)": ("text",),
    "date": ("timestamptz", "text"),
    "json": ("jsonb",),
    "text": ("varchar(10000)",),
}


class History:
    """A table that things happen to.

    Args:
        pipe: Its extract and load.
        chance: Draws what happens.
        has_key: Whether it has a primary key.
    """

    def __init__(self, pipe, chance, *, has_key):
        self.pipe, self.chance, self.has_key = pipe, chance, has_key
        self.columns = {}
        self.names = iter(f"c{n}" for n in range(1000))
        self.last_id = 0
        self.told = []

    def change(self, *statements):
        self.told += statements
        self.pipe.change(*statements)

    def make(self):
        key = "primary key" if self.has_key else ""
        self.columns = {}
        self.change(f"create table {{}} (id integer {key}, at timestamptz not null)")
        if self.has_key:
            self.change("alter publication sluice add table {}")
        for _ in range(self.chance.randint(1, 5)):
            self.add_column()
        self.insert()

    def value(self, kind):
        return self.chance.choice(("null", *TYPES.get(kind, ("null",))))

    def some(self):
        """A condition that some rows meet."""
        return f"id % {self.chance.randint(2, 4)} = 0"

    def insert(self):
        count = self.chance.randint(1, 8)
        names = ", ".join(("id", "at", *self.columns))
        rows = [
            ", ".join((str(self.last_id + n), "clock_timestamp()", *map(self.value, kinds)))
            for n, kinds in enumerate([list(self.columns.values())] * count, 1)
        ]
        self.last_id += count
        self.change(f"insert into {{}} ({names}) values ({'), ('.join(rows)})")

    def update(self):
        sets = [f"{c} = {self.value(kind)}" for c, kind in self.columns.items()]
        chosen = self.chance.sample(sets, self.chance.randint(0, len(sets)))
        assigned = ", ".join(("at = clock_timestamp()", *chosen))
        self.change(f"update {{}} set {assigned} where {self.some()}")

    def renumber(self):
        self.last_id += 1
        which = "id = (select max(id) from {})"
        self.change(f"update {{}} set id = {self.last_id}, at = clock_timestamp() where {which}")

    def delete(self):
        self.change(f"delete from {{}} where {self.some()}")

    def delete_and_insert(self):
        again = "insert into {} (id, at) select n, clock_timestamp() from generate_series(1, 3) n"
        self.change("delete from {} where id <= 3", again)
        self.last_id = max(self.last_id, 3)

    def truncate(self):
        self.change("truncate {}")

    def make_anew(self):
        self.change("drop table {}")
        self.make()

    def add_column(self):
        name, kind = next(self.names), self.chance.choice(list(TYPES))
        self.columns[name] = kind
        default = self.chance.choice(("", f"default {self.value(kind)}"))
        self.change(f"alter table {{}} add {name} {kind} {default}")

    def drop_column(self):
        if self.columns:
            name = self.chance.choice(list(self.columns))
            del self.columns[name]
            self.change(f"alter table {{}} drop {name}")

    def take_a_name_again(self):
        """Another column of a name that was there before."""
        self.drop_column()
        name, kind = "c0", self.chance.choice(list(TYPES))
        if name not in self.columns:
            self.columns[name] = kind
            self.change(f"alter table {{}} add {name} {kind} default {self.value(kind)}")

    def rename_column(self):
        if self.columns:
            name, new = self.chance.choice(list(self.columns)), next(self.names)
            self.columns[new] = self.columns.pop(name)
            self.change(f"alter table {{}} rename {name} to {new}")

    def change_type(self):
        known = [c for c, kind in self.columns.items() if kind in CHANGES]
        if known:
            name = self.chance.choice(known)
            kind = self.chance.choice(CHANGES[self.columns[name]])
            self.columns[name] = kind
            self.change(
                f"alter table {{}} alter {name} drop default",
                f"alter table {{}} alter {name} type {kind} using {name}::{kind}",
            )

    def roll_back(self):
        with closing(self.pipe.shop.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(f"delete from {self.pipe.stream.name}")
            connection.rollback()

    def go_on(self):
        """One thing or another happens."""
        usual = (self.insert, self.update, self.delete, self.renumber, self.delete_and_insert)
        columns = (self.add_column, self.drop_column, self.rename_column, self.change_type)
        seldom = (self.truncate, self.make_anew, self.take_a_name_again, self.roll_back)
        weights = [6] * len(usual) + [2] * len(columns) + [1] * len(seldom)
        self.chance.choices((*usual, *columns, *seldom), weights)[0]()

    def run(self, number):
        """Extract and load, now and then more than once."""
        self.told.append(f"run {number}")
        if self.chance.random() < 0.2:
            self.pipe.extract(f"lost-{number}")
            self.go_on()
        self.pipe.go(f"run-{number}")
        if self.chance.random() < 0.2:
            self.pipe.load(f"run-{number}")


def histories():
    names = list(METHODS)
    return [
        pytest.param(names[n % len(names)], SEED * 10_000 + n, id=f"{names[n % len(names)]}-{n}")
        for n in range(HISTORIES)
    ]


@pytest.mark.parametrize(("method", "seed"), histories())
def test_after_each_run_the_warehouse_has_what_was_promised(
    shop, shop_connection, local_snowflake, tmp_path, monkeypatch, method, seed
):
    monkeypatch.setenv("SLUICE_SPOOL", str(tmp_path))
    stream = Stream(f"h{seed}", f"public.h{seed}", **METHODS[method])
    pipe = Pipe(shop, shop_connection, local_snowflake, tmp_path, stream)
    history = History(pipe, random.Random(seed), has_key=method != "keyless")  # noqa: S311
    source = Source("shop", "", "", "RAW", (stream,))
    history.make()
    try:
        for number in range(RUNS):
            for _ in range(history.chance.randint(0, MOST_CHANGES)):
                history.go_on()
            history.run(number)
            found = compare(
                source, stream, shop_connection, local_snowflake.connection, promised(pipe)
            )
            assert found.equal, "\n".join((str(found), *history.told))
    finally:
        pipe.drop()


def promised(pipe):
    """Which raw rows have to be the source's: where nothing finds deleted ones, they stay."""
    if pipe.stream.replication != "incremental" or pipe.stream.deletes == "sweep":
        return "true"
    with closing(pipe.shop.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"select id from {pipe.stream.name}")
        ids = ", ".join(str(row[0]) for row in cursor.fetchall())
    return f"id in ({ids or 'null'})"
