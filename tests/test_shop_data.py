from __future__ import annotations

import hashlib
from contextlib import closing, contextmanager

import pytest

from include.local import shop_data


@contextmanager
def database(server, name):
    with closing(server.connect("postgres", "postgres")) as admin:
        admin.autocommit = True
        admin.cursor().execute(f"create database {name} owner shop_owner")
    with closing(server.connect(name)) as connection:
        yield connection


def hashes(connection):
    found = {}
    with connection.cursor() as cursor:
        for table in shop_data.TABLES:
            cursor.execute(f"select t::text from {table} t order by 1")
            rows = "\n".join(row[0] for row in cursor.fetchall())
            found[table] = hashlib.sha256(rows.encode()).hexdigest()
    return found


@pytest.fixture(scope="module")
def two_shops(postgres):
    with database(postgres, "one") as one, database(postgres, "two") as two:
        for connection in (one, two):
            shop_data.fill(connection, scale=0.05, seed=7)
        yield one, two


def test_the_same_seed_makes_the_same_shop_and_the_same_days(two_shops):
    one, two = two_shops
    assert hashes(one) == hashes(two)
    assert shop_data.tick(one) == shop_data.tick(two)
    assert hashes(one) == hashes(two)


def test_another_seed_makes_another_shop(postgres, two_shops):
    with database(postgres, "other") as other:
        shop_data.fill(other, scale=0.05, seed=8)
        assert not set(hashes(other).values()) & set(hashes(two_shops[0]).values())


def test_a_filled_shop_is_left_as_it_is(two_shops):
    before = hashes(two_shops[0])
    shop_data.fill(two_shops[0], scale=1, seed=9)
    assert hashes(two_shops[0]) == before


def test_a_day_inserts_updates_and_deletes_and_moves_every_changed_row_forward(two_shops):
    connection = two_shops[0]
    with connection.cursor() as cursor:
        cursor.execute("select max(updated_at) from orders")
        bookmark = cursor.fetchone()[0]
        cursor.execute("select order_id, orders::text from orders")
        before = dict(cursor.fetchall())
        connection.commit()
        changes = shop_data.tick(connection)
        cursor.execute("select order_id, orders::text, updated_at from orders")
        after = {key: (text, moment) for key, text, moment in cursor.fetchall()}
    inserted = after.keys() - before.keys()
    updated = {k for k in after.keys() & before.keys() if after[k][0] != before[k]}
    assert changes["orders"] == {
        "inserted": len(inserted),
        "updated": len(updated),
        "deleted": len(before.keys() - after.keys()),
    }
    assert all(changes["orders"].values())
    assert all(after[k][1] > bookmark for k in inserted | updated)


def test_every_nullable_column_has_a_null_and_a_value(shop):
    with closing(shop.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select table_name, column_name from information_schema.columns"
            " where table_schema = 'public' and is_nullable = 'YES'"
        )
        for table, column in cursor.fetchall():
            cursor.execute(f'select count(*), count("{column}") from {table}')
            rows, values = cursor.fetchone()
            assert 0 < values < rows, f"{table}.{column}"
