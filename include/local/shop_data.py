"""The sample shop: the same rows for the same seed, at any size, and a day of life at a time.

python -m include.local.shop_data fill --port 55432 --scale 1
python -m include.local.shop_data tick --port 55432
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import uuid
from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg2
from faker import Faker
from psycopg2 import sql

from include.errors import LocalError, SluiceError
from include.local.postgres import Server
from include.settings import local_password

SCHEMA = Path(__file__).with_name("shop_schema.sql")
FIRST_DAY = datetime(2025, 11, 1, tzinfo=UTC)
DAYS = 90
SEED = 20260131
TABLES = (
    "customers",
    "addresses",
    "suppliers",
    "products",
    "orders",
    "order_items",
    "payments",
    "web_events",
)
# Rows at scale 1; together about 50,000.
SIZES = {"customers": 2000, "suppliers": 50, "products": 600, "orders": 7000, "web_events": 16000}
STATUSES = ("placed", "paid", "shipped", "completed", "returned", "cancelled")
METHODS = ("card", "bank_transfer", "wallet", "voucher")
EVENTS = ("page_view", "search", "add_to_cart", "checkout", "purchase")
CURRENCIES = ("EUR", "USD", "GBP")
COUNTRIES = ("DE", "FR", "GB", "US", "NL", "SE", "ES", "IT", "PL", "JP")
CATEGORIES = ("garden", "kitchen", "books", "toys", "tools", "sport")
AWKWARD = (
    "plain",
    'O\'Brien said "no"',
    "back\\slash and \\N",
    "tab\there",
    "two\nlines",
    "caffè ☕ 東京 🚀",
    "{{ not_jinja }} %s $1",
    "comma, semicolon; pipe|",
    "",
)

Row = tuple[Any, ...]


class Shop:
    """Makes rows; holds the random state of one fill or one day.

    Args:
        seed: The same seed makes the same rows.
        now: The moment up to which the shop has lived.
    """

    def __init__(self, seed: int, now: datetime) -> None:
        self.random = random.Random(seed)  # noqa: S311  (repeatable on purpose)
        self.now = now
        fake = Faker(["en_GB", "de_DE", "fr_FR"], use_weighting=False)
        fake.seed_instance(seed)
        self._names = [fake.name() for _ in range(200)]
        self._cities = [fake.city() for _ in range(80)]
        self._streets = [fake.street_name() for _ in range(120)]
        self._words = [fake.word() for _ in range(200)]

    def maybe(self, value: Any, chance: float = 0.1) -> Any:
        """The value, or None with a chance."""
        return None if self.random.random() < chance else value

    def uuid(self) -> str:
        """A version 4 uuid out of this shop's random state."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def moment(self, days: float = DAYS) -> datetime:
        """A moment of the last days, to the microsecond."""
        return self.now - timedelta(microseconds=self.random.randrange(int(days * 86400e6)))

    def money(self, low: int, high: int) -> Decimal:
        """An amount with two decimals; low and high are cents."""
        return Decimal(self.random.randint(low, high)).scaleb(-2)

    def text(self) -> str | None:
        """Words, or something that breaks naive quoting, or None."""
        if self.random.random() < 0.3:
            return None if self.random.random() < 0.3 else self.random.choice(AWKWARD)
        return " ".join(self.random.choices(self._words, k=4))

    def document(self) -> str | None:
        """JSON with nesting, big integers and text that needs escapes."""
        value = {
            "n": self.random.randint(0, 2**53 - 1),
            "text": self.random.choice(AWKWARD),
            "list": [self.random.randint(0, 9), None, {"deep": self.random.choice(self._words)}],
        }
        return None if self.random.random() < 0.15 else json.dumps(value, ensure_ascii=False)

    def customer(self, key: int) -> Row:
        """A row of ``customers``."""
        created, name = self.moment(), self.random.choice(self._names)
        tags = self.maybe(self.random.sample(AWKWARD[:8], self.random.randint(0, 3)), 0.2)
        return (
            key,
            self.uuid(),
            self.maybe(f"customer{key}@example.com"),
            self.maybe(name),
            self.maybe(f"+49 30 {self.random.randint(10**6, 10**7 - 1)}", 0.3),
            self.maybe(datetime(1940, 1, 1) + timedelta(days=self.random.randint(0, 24000)), 0.2),
            self.maybe(self.random.random() < 0.5),
            self.document(),
            tags,
            self.maybe(self.money(0, 10**10), 0.3),
            created,
            max(created, self.moment()),
        )

    def address(self, key: int, customer: int) -> Row:
        """A row of ``addresses``."""
        return (
            key,
            customer,
            self.maybe(f"{self.random.choice(self._streets)} {self.random.randint(1, 200)}"),
            self.maybe(self.random.choice(self._cities)),
            self.maybe(f"{self.random.randint(0, 99999):05}"),
            self.maybe(self.random.choice(COUNTRIES)),
            self.maybe(self.random.random() < 0.7),
            self.maybe(Decimal(self.random.randint(-90_000000, 90_000000)).scaleb(-6)),
            self.maybe(Decimal(self.random.randint(-180_000000, 180_000000)).scaleb(-6)),
            self.moment(),
        )

    def supplier(self, key: int) -> Row:
        """A row of ``suppliers``."""
        return (
            key,
            f"{self.random.choice(self._names)} & Co.",
            self.maybe(self.random.choice(COUNTRIES)),
            self.maybe(self.money(100, 500)),
            self.maybe(self.random.random() < 0.9),
            self.moment(),
        )

    def product(self, key: int, suppliers: int) -> Row:
        """A row of ``products``; one in twenty costs a number of 28 digits before the point."""
        cost = Decimal(self.random.randrange(10**13)).scaleb(-10)
        if key % 20 == 0:
            cost = Decimal(self.random.randrange(10**37, 10**38)).scaleb(-10)
        return (
            key,
            self.random.randint(1, suppliers),
            f"SKU-{key:06}",
            " ".join(self.random.choices(self._words, k=2)),
            self.text(),
            self.maybe(self.random.choice(CATEGORIES)),
            self.money(100, 50000),
            self.maybe(cost),
            self.document(),
            self.maybe(self.moment().date(), 0.9),
            self.moment(),
        )

    def order(self, key: int, customers: int, addresses: int, days: float = DAYS) -> Row:
        """A row of ``orders``."""
        ordered = self.moment(days)
        return (
            key,
            self.random.randint(1, customers),
            self.maybe(self.random.randint(1, addresses)),
            self.random.choices(STATUSES, (1, 2, 3, 8, 1, 1))[0],
            self.maybe(f"ORD/{key:08}"),
            self.random.choice(CURRENCIES),
            self.maybe(self.money(0, 2000), 0.6),
            self.text(),
            ordered,
            self.random.choice((ordered, ordered + (self.now - ordered) * self.random.random())),
        )

    def items(self, order: Row, products: int) -> list[Row]:
        """Rows of ``order_items`` for an order."""
        return [
            (
                order[0],
                line,
                self.random.randint(1, products),
                self.random.randint(1, 5),
                self.money(100, 50000),
                self.maybe(self.random.choice((Decimal("0.1900"), Decimal("0.0700")))),
                order[-1],
            )
            for line in range(1, self.random.choices((1, 2, 3, 4), (4, 3, 2, 1))[0] + 1)
        ]

    def payment(self, order: Row) -> Row:
        """A row of ``payments`` for an order."""
        rate = Decimal(self.random.randrange(10**9, 10**11)).scaleb(-10)
        return (
            self.uuid(),
            order[0],
            self.random.choice(METHODS),
            self.money(100, 200000),
            self.maybe(rate, 0.5),
            self.random.choices(("settled", "pending", "failed", "refunded"), (9, 1, 1, 1))[0],
            self.maybe(order[-1], 0.1),
            self.document(),
            order[-1],
        )

    def event(self, key: int, customers: int, sessions: Sequence[str], days: float = DAYS) -> Row:
        """A row of ``web_events``."""
        return (
            key,
            self.maybe(self.random.randint(1, customers), 0.4),
            self.random.choice(sessions),
            self.random.choices(EVENTS, (12, 4, 3, 2, 1))[0],
            self.maybe(f"https://shop.example/{self.random.choice(CATEGORIES)}/{key}"),
            self.maybe(self.random.choice(AWKWARD), 0.5),
            self.document(),
            self.moment(days),
        )


def _copied(value: Any) -> str:
    """One value in the text form of COPY."""
    if value is None:
        return "\\N"
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, list):
        quoted = (item.replace("\\", "\\\\").replace('"', '\\"') for item in value)
        value = "{" + ",".join(f'"{item}"' for item in quoted) + "}"
    text = str(value).replace("\\", "\\\\")
    return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _copy(cursor: Any, table: str, rows: Iterable[Row]) -> None:
    lines = "".join("\t".join(map(_copied, row)) + "\n" for row in rows)
    cursor.copy_expert(
        sql.SQL("copy {} from stdin").format(sql.Identifier(table)), io.StringIO(lines)
    )


def counts(connection: Any) -> dict[str, int]:
    """Rows of each table, in the order of :data:`TABLES`."""
    found = {}
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(table)))
            found[table] = cursor.fetchone()[0]
    return found


def _day(cursor: Any) -> tuple[int, int] | None:
    """(day, seed) of a filled shop, or None for an empty database."""
    cursor.execute("select to_regclass('shop_admin.calendar')")
    if cursor.fetchone()[0] is None:
        return None
    cursor.execute("select day, seed from shop_admin.calendar")
    found: tuple[int, int] | None = cursor.fetchone()
    return found


def fill(connection: Any, scale: float = 1, seed: int = SEED) -> dict[str, int]:
    """Fill an empty database, in one transaction; a filled one is left as it is.

    Args:
        connection: To the database ``shop``, as its owner.
        scale: 1 is about 50,000 rows.
        seed: The same seed and scale make the same rows.

    Returns:
        Rows of each table.
    """
    with connection, connection.cursor() as cursor:
        if _day(cursor) is None:
            cursor.execute(SCHEMA.read_text())
            _fill(cursor, {k: max(60, round(n * scale)) for k, n in SIZES.items()}, seed)
    return counts(connection)


def _fill(cursor: Any, sizes: dict[str, int], seed: int) -> None:
    shop = Shop(seed, FIRST_DAY + timedelta(days=DAYS))
    customers = sizes["customers"]
    keys = {name: range(1, size + 1) for name, size in sizes.items()}
    addresses = [(n, (n - 1) % customers + 1) for n in range(1, round(customers * 1.25) + 1)]
    orders = [shop.order(k, customers, len(addresses)) for k in keys["orders"]]
    sessions = [shop.uuid() for _ in range(max(1, sizes["web_events"] // 6))]
    _copy(cursor, "customers", map(shop.customer, keys["customers"]))
    _copy(cursor, "addresses", (shop.address(k, customer) for k, customer in addresses))
    _copy(cursor, "suppliers", map(shop.supplier, keys["suppliers"]))
    _copy(cursor, "products", (shop.product(k, sizes["suppliers"]) for k in keys["products"]))
    _copy(cursor, "orders", orders)
    _copy(cursor, "order_items", (i for o in orders for i in shop.items(o, sizes["products"])))
    _copy(cursor, "payments", (shop.payment(o) for o in orders if shop.random.random() < 0.9))
    _copy(cursor, "web_events", (shop.event(k, customers, sessions) for k in keys["web_events"]))
    cursor.execute("insert into shop_admin.calendar values (0, %s)", [seed])


def tick(connection: Any) -> dict[str, dict[str, int]]:
    """Let the shop live for one more day, in one transaction.

    Args:
        connection: To the database ``shop``, as its owner.

    Returns:
        Rows inserted, updated and deleted, by table.

    Raises:
        LocalError: The shop was never filled.
    """
    with connection, connection.cursor() as cursor:
        if (found := _day(cursor)) is None:
            raise LocalError("the shop is empty: fill it before a day can pass")
        day, seed = found[0] + 1, found[1]
        cursor.execute("update shop_admin.calendar set day = %s", [day])
        shop = Shop(seed + day, FIRST_DAY + timedelta(days=DAYS + day))
        deleted = _delete(cursor, shop)
        updated = _update(cursor, shop)
        inserted = _insert(cursor, shop)
    changes = {"inserted": inserted, "updated": updated, "deleted": deleted}
    return {table: {kind: rows.get(table, 0) for kind, rows in changes.items()} for table in TABLES}


def _some_keys(cursor: Any, shop: Shop, table: str, key: str, share: float) -> list[Any]:
    statement = sql.SQL("select {0} from {1} order by {0}")
    cursor.execute(statement.format(sql.Identifier(key), sql.Identifier(table)))
    keys = [row[0] for row in cursor.fetchall()]
    return shop.random.sample(keys, max(1, round(len(keys) * share)))


def _delete(cursor: Any, shop: Shop) -> dict[str, int]:
    """Orders are erased with their items and payments; addresses nobody ordered to go too."""
    orders = _some_keys(cursor, shop, "orders", "order_id", 0.002)
    gone = {"orders": len(orders)}
    for table in ("order_items", "payments"):
        statement = sql.SQL("delete from {} where order_id = any(%s)")
        cursor.execute(statement.format(sql.Identifier(table)), [orders])
        gone[table] = cursor.rowcount
    cursor.execute("delete from orders where order_id = any(%s)", [orders])
    cursor.execute(
        "delete from addresses where address_id in (select address_id from addresses a where not"
        " exists (select from orders o where o.address_id = a.address_id) order by 1 limit 5)"
    )
    return gone | {"addresses": cursor.rowcount}


def _update(cursor: Any, shop: Shop) -> dict[str, int]:
    """Orders move on, also very old ones; prices, ratings and customers change."""
    changed = {}
    statements = {
        ("orders", "order_id", 0.01): "status = 'completed'",
        ("payments", "payment_id", 0.005): "status = 'settled', fx_rate = fx_rate * 1.0000000001",
        ("products", "product_id", 0.02): "price = price + 1.01",
        ("customers", "customer_id", 0.01): "is_subscribed = not is_subscribed, phone = null",
        ("suppliers", "supplier_id", 0.05): "rating = 4.99",
    }
    for (table, key, share), assignment in statements.items():
        keys = _some_keys(cursor, shop, table, key, share)
        moments = [shop.moment(0.9) for _ in keys]
        cursor.execute(
            sql.SQL(
                "update {} t set {}, updated_at = m from unnest(%s::text[], %s::timestamptz[])"
                " as c (k, m) where t.{}::text = c.k"
            ).format(sql.Identifier(table), sql.SQL(assignment), sql.Identifier(key)),
            [[str(k) for k in keys], moments],
        )
        changed[table] = cursor.rowcount
    return changed


def _insert(cursor: Any, shop: Shop) -> dict[str, int]:
    top = {}
    for table, key in (
        ("customers", "customer_id"),
        ("orders", "order_id"),
        ("products", "product_id"),
        ("web_events", "event_id"),
    ):
        statement = sql.SQL("select max({}) from {}")
        cursor.execute(statement.format(sql.Identifier(key), sql.Identifier(table)))
        top[table] = cursor.fetchone()[0]
    new = {table: max(2, n // DAYS) for table, n in top.items() if table != "products"}
    keys = {table: range(top[table] + 1, top[table] + n + 1) for table, n in new.items()}
    customers = [_moved(shop.customer(k), shop) for k in keys["customers"]]
    orders = [
        (*o[:2], None, *o[3:])
        for o in (shop.order(k, top["customers"], 1, 0.9) for k in keys["orders"])
    ]
    sessions = [shop.uuid() for _ in range(max(1, new["web_events"] // 6))]
    rows = {
        "customers": customers,
        "orders": orders,
        "order_items": [i for o in orders for i in shop.items(o, top["products"])],
        "payments": [shop.payment(o) for o in orders],
        "web_events": [shop.event(k, top["customers"], sessions, 0.9) for k in keys["web_events"]],
    }
    for table, made in rows.items():
        _copy(cursor, table, made)
    return {table: len(made) for table, made in rows.items()}


def _moved(customer: Row, shop: Shop) -> Row:
    moment = shop.moment(0.9)
    return (*customer[:-2], moment, moment)


def main() -> int:
    """Run one command; prints its figures as JSON, a failure as one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("fill", "tick", "counts"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    try:
        server = Server(arguments.port, local_password())
        with closing(server.connect()) as connection:
            if arguments.command == "fill":
                figures: dict[str, Any] = fill(connection, arguments.scale, arguments.seed)
            else:
                figures = tick(connection) if arguments.command == "tick" else counts(connection)
    except (SluiceError, psycopg2.Error) as error:
        sys.stderr.write(f"{str(error).strip().splitlines()[0]}\n")
        return 1
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
