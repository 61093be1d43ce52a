"""What loaders and dbt say to Snowflake and fakesnow 0.12 does not understand.

Each method takes a parsed statement (sqlglot, Snowflake dialect) and returns what DuckDB can run.
fakesnow's private methods are overridden here, so its version is pinned exactly.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import duckdb
import fakesnow.server as fakesnow_server
import pyarrow.compute as compute
import snowflake.connector.errors as snowflake_errors
from fakesnow.cursor import FakeSnowflakeCursor
from fakesnow.transforms import stage
from fakesnow.transforms.file_format import lookup_file_format
from sqlglot import exp, parse_one
from sqlglot.dialects import Snowflake
from sqlglot.optimizer.simplify import simplify

from include.local.snowflake_sessions import (
    SESSIONS,
    TIMEOUT,
    Cancelled,
    Statement,
    roll_back_idle,
)

HOME = "_FS.USER.HOME"  # the stage that stands for every user's '@~'
STAGED = "_fs_staged"
CONFLICT_SECONDS = 45.0  # longer than a left transaction stays; clients ask again after 60
NESTED = (exp.DataType.Type.VARIANT, exp.DataType.Type.OBJECT, exp.DataType.Type.ARRAY)
FIELDS = "(select *, row_number() over () as seq from _fs_fields)"
LONG = "maximum_object_size=134217728"  # a jsonb value may exceed DuckDB's 16 MB
NOTES = threading.Lock()
RESERVED = {
    row[0]
    for row in duckdb.execute(
        "select keyword_name from duckdb_keywords() where keyword_category != 'unreserved'"
    ).fetchall()
}
IGNORED = re.compile(
    r"(grant|revoke)\b|create\s+(role|user)\b|alter\s+(table|view)\s.*\scomment\s+\$\$",
    re.I | re.S,
)
CLONE_COPY_GRANTS = re.compile(r"(create\s.*\sclone\s.*)\scopy\s+grants\s*", re.I | re.S)
SHOW_GRANTS = re.compile(r"show\s+grants\b", re.I)
GRANT_COLUMNS = (
    "created_on",
    "privilege",
    "granted_on",
    "name",
    "granted_to",
    "grantee_name",
    "grant_option",
    "granted_by",
)
CANCEL_ALL = "system$cancel_all_queries"
COPY_RESULT = f"""
select '{{ref}}' as file, 'LOADED' as status, count(*) as rows_parsed, count(*) as rows_loaded,
    1 as error_limit, 0 as errors_seen, null as first_error, null as first_error_line,
    null as first_error_character, null as first_error_column_name
from {STAGED}"""  # noqa: S608
DECLARED_ONLY = (  # in Snowflake keys are declared and not enforced
    exp.PrimaryKey,
    exp.PrimaryKeyColumnConstraint,
    exp.UniqueColumnConstraint,
    exp.ForeignKey,
    exp.Reference,
    exp.CommentColumnConstraint,
)


def home_files(ref: str) -> list[Path]:
    """The files below a prefix of the user stage.

    Args:
        ref: A reference such as ``@~/target-snowflake/orders-1``.
    """
    prefix = stage.internal_dir(HOME, ref.removeprefix("@~").lstrip("/"))
    # Not Path.glob, which fails where another session removes a folder while it looks.
    below = os.walk(stage.internal_dir(HOME))
    paths = (Path(folder, name) for folder, _, names in below for name in names)
    return sorted(path for path in paths if str(path).startswith(prefix))


def _home_ref(node: Any) -> str | None:
    if not isinstance(node, exp.Table) or not isinstance(node.this, exp.Literal | exp.Var):
        return None
    return str(node.this.name) if node.this.name.startswith("@~") else None


def _text(expression: Any) -> str:
    return str(expression.sql("snowflake")) if isinstance(expression, exp.Command) else ""


class Cursor(FakeSnowflakeCursor):
    """fakesnow's cursor, and the statements that it lacks."""

    _running: Statement | None = None

    def execute(self, command: Any, params: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Run a statement; what the emulator cannot do is an SQL error, never an HTTP 500."""
        with self._conn.session.statement() as self._running:
            return self._execute_until_no_conflict(command, params, *args, **kwargs)

    def _execute_until_no_conflict(
        self, command: Any, params: Any, *args: Any, **kwargs: Any
    ) -> Any:
        joins = self._conn._in_transaction
        give_up = time.monotonic() + CONFLICT_SECONDS
        wait = 0.0
        while True:
            try:
                if self._running:
                    self._running.check()
                return super().execute(command, params, *args, **kwargs)
            except snowflake_errors.Error:
                raise
            except duckdb.TransactionException as error:
                # Snowflake waits for the other session's lock; DuckDB gives up at once.
                if "onflict" not in str(error) or time.monotonic() > give_up:
                    raise self._as_sql_error(error) from error
                if self._conn._in_transaction and not joins:  # one that this statement has begun
                    self._duck_conn.rollback()
                    self._conn._in_transaction = False
                roll_back_idle()
                wait = min(wait + 0.02, 1.0)
                time.sleep(random.random() * wait)  # noqa: S311
            except duckdb.InterruptException:
                why = (self._running and self._running.cancelled) or Cancelled()
                raise snowflake_errors.ProgrammingError(
                    msg=why.message, errno=why.errno, sqlstate="57014"
                ) from None
            except Exception as error:
                raise self._as_sql_error(error) from error

    @staticmethod
    def _as_sql_error(error: Exception) -> snowflake_errors.ProgrammingError:
        fakesnow_server.logger.error("local Snowflake: %s: %s", type(error).__name__, error)
        return snowflake_errors.ProgrammingError(
            msg=f"{type(error).__name__}: {error}", errno=9999, sqlstate="99999"
        )

    def check_db_and_schema(self, expression: Any) -> None:
        """A statement on the user stage needs neither database nor schema."""
        if not any(_home_ref(table) for table in expression.find_all(exp.Table)):
            super().check_db_and_schema(expression)

    def _transform_explode(self, expression: Any) -> Any:
        if clone := CLONE_COPY_GRANTS.fullmatch(_text(expression)):
            expression = parse_one(clone[1], read="snowflake")
        _uuids_as_text(expression)
        _formats_of_moments(expression)
        if done := _cancel_all(expression):
            return [done]
        if (timeout := _session_timeout(expression)) is not None:
            self._conn.session.timeout = timeout
            return [_executed()]
        if replaced := self._statement(expression):
            return replaced
        return super()._transform_explode(expression)

    def _statement(self, expression: Any) -> list[Any] | None:
        """What to run in place of a statement, or None where fakesnow can run it (as mended)."""
        text = _text(expression)
        warehouse = isinstance(expression, exp.Create) and expression.args["kind"] == "WAREHOUSE"
        if isinstance(expression, exp.Grant | exp.Revoke) or warehouse or IGNORED.match(text):
            return [_executed()]
        if _is_show_grants(expression, text):
            empty = exp.Literal.string("")
            names = (exp.alias_(empty.copy(), name, quoted=True) for name in GRANT_COLUMNS)
            return [exp.select(*names).limit(0)]
        if isinstance(expression, exp.Put):
            _put_home(expression)
        elif isinstance(expression, exp.Comment):
            literal = expression.expression  # fakesnow pastes it between quotes
            literal.set("this", literal.this.replace("'", "''"))
        elif isinstance(expression, exp.Create) and expression.args["kind"] in ("TABLE", "VIEW"):
            _drop_what_is_declared_only(expression)
            _copy_a_clone(expression)
        elif isinstance(expression, exp.Drop) and expression.args["kind"] == "FILE FORMAT":
            return [self._drop_file_format(expression.args["tables"][0])]
        elif isinstance(expression, exp.Merge):
            return [self._merge(expression)]
        elif isinstance(expression, exp.Copy):
            return self._copy_from_home(expression)
        elif isinstance(expression, exp.Command) and str(expression.this).upper() in (
            "REMOVE",
            "RM",
        ):
            ref = expression.expression.name.strip().strip("'")
            return [_remove(ref)] if ref.startswith("@~") else None
        return None

    def _copy_from_home(self, copy: Any) -> list[Any] | None:
        """COPY INTO t FROM (SELECT ... FROM '@~/x'): stage it, insert it, tell the result."""
        subquery = copy.args["files"][0]
        if not isinstance(subquery, exp.Subquery):
            return None
        table = subquery.this.args["from_"].this
        if not (ref := _home_ref(table)):
            return None
        formats = (p for p in copy.find_all(exp.Property) if p.name.upper() == "FORMAT_NAME")
        file_format = next((p.args["value"].name for p in formats), None)
        return [
            exp.Create(
                this=exp.to_table(STAGED),
                kind="TABLE",
                replace=True,
                expression=self._staged(subquery.this, table, file_format),
                properties=exp.Properties(expressions=[exp.TemporaryProperty()]),
            ),
            exp.Insert(this=copy.this, expression=exp.select("*").from_(STAGED)),
            parse_one(COPY_RESULT.format(ref=ref), read="duckdb"),
        ]

    def _staged(self, select: Any, table: Any, file_format: str | None) -> Any:
        """SELECT $1:a::T AS a FROM '@~/x', over the files that the stage holds."""
        kind = "CSV"
        if file_format:
            connection = self._conn
            kind = lookup_file_format(
                self._duck_conn, file_format, connection.database, connection.schema
            )["TYPE"]
        files = [str(path) for path in home_files(_home_ref(table) or "")]
        fields = _fields(select) if kind == "JSON" and files else None
        source = FIELDS if fields else _file_source(files, kind)
        relation = parse_one(f"select * from {source} as _fs_stage", read="duckdb")  # noqa: S608
        if fields:
            relation.find(exp.Table).set("this", _field_source(files, fields))
        table.replace(relation.args["from_"].this)
        return select.transform(_staged_cell, fields)

    def _merge(self, merge: Any) -> Any:
        """DuckDB's own MERGE: fakesnow's knows neither table aliases nor unqualified columns."""
        using = merge.args["using"]
        if isinstance(using, exp.Subquery) and (from_ := using.this.args.get("from_")):
            table = from_.this
            if _home_ref(table):
                named = table.args.get("format")
                file_format = named.sql("snowflake") if named else None
                using.set("this", self._staged(using.this, table, file_format))
        for when in merge.args["whens"].expressions:
            _qualify(when.args["then"], using.alias_or_name)
        merge.set("returning", exp.Returning(expressions=[exp.column("merge_action")]))
        return merge

    def _drop_file_format(self, table: Any) -> Any:
        connection = self._conn
        name = stage.parts_from_var(table.sql("snowflake"), connection.database, connection.schema)
        with self._duck_conn.cursor() as cursor:
            cursor.execute(
                "delete from _fs_global._fs_information_schema._fs_file_formats"
                " where (database_name, schema_name, name) = (?, ?, ?)",
                name,
            )
        return exp.select(exp.alias_(exp.Literal.string(f"{name[2]} dropped."), "status"))

    def _execute(self, transformed: Any, params: Any = None) -> None:
        for identifier in transformed.find_all(exp.Identifier):
            if identifier.name.lower() in RESERVED:
                identifier.set("quoted", True)
        if isinstance(transformed, exp.Create) and transformed.this.name.lower() == STAGED:
            # No metadata for a temporary table: sessions would conflict over it.
            transformed.args.pop("text_lengths", None)
        # What fakesnow notes after such a statement replaces what another session may be noting.
        noted = transformed.args.keys() & {"text_lengths", "table_comment"}
        running = self._running
        if running:
            running.check()
        with running.holding(NOTES) if running and noted else nullcontext():
            super()._execute(transformed, params)
        if isinstance(transformed, exp.Merge):
            super()._execute(self._merge_counts(transformed))

    def _merge_counts(self, merge: Any) -> Any:
        actions = compute.value_counts(self._arrow_table.column(0).combine_chunks()).to_pylist()
        counted = {action["values"]: action["counts"] for action in actions}
        done = {type(when.args["then"]) for when in merge.args["whens"].expressions}
        kinds: tuple[tuple[str, str, Any], ...] = (
            ("INSERT", "inserted", exp.Insert),
            ("UPDATE", "updated", exp.Update),
        )
        kinds += (("DELETE", "deleted", exp.Var),)
        columns = (
            exp.alias_(
                exp.Literal.number(counted.get(action, 0)), f"number of rows {name}", quoted=True
            )
            for action, name, kind in kinds
            if kind in done
        )
        result = exp.select(*columns)
        result.set("merge_counts", True)
        return result


def _cancel_all(expression: Any) -> Any:
    """For SELECT system$cancel_all_queries(session id), which dbt says on Ctrl-C; else None."""
    call = expression.expressions[0] if isinstance(expression, exp.Select) else None
    if not isinstance(call, exp.Anonymous) or call.name.lower() != CANCEL_ALL:
        return None
    if session := SESSIONS.get(int(call.expressions[0].name)):
        session.cancel()
    return exp.select(exp.alias_(exp.Literal.string("done"), CANCEL_ALL.upper(), quoted=True))


def _executed() -> Any:
    done = exp.Literal.string("Statement executed successfully.")
    return exp.select(exp.alias_(done, "status"))


def _session_timeout(expression: Any) -> int | None:
    """For ALTER SESSION SET or UNSET of the time-out alone, its seconds; else None."""
    change = expression.find(exp.AlterSession) if isinstance(expression, exp.Alter) else None
    if change is None:
        return None
    items = change.expressions
    if [item.find(exp.Identifier).name.upper() for item in items] != [TIMEOUT]:
        return None
    return 0 if change.args["unset"] else int(items[0].this.expression.name)


def _is_show_grants(expression: Any, text: str) -> bool:
    shown = isinstance(expression, exp.Show) and expression.name.upper().startswith("GRANTS")
    return shown or bool(SHOW_GRANTS.match(text))


def _uuids_as_text(expression: Any) -> None:
    """DuckDB's UUID type cannot be sent to a Snowflake client."""
    for kind in expression.find_all(exp.DataType):
        if kind.this == exp.DataType.Type.UUID:
            kind.replace(exp.DataType.build("VARCHAR(36)", dialect="snowflake"))


def _formats_of_moments(expression: Any) -> None:
    """One put together out of texts, as in dbt's catalog; and sqlglot has dd without its zero."""
    for told in expression.find_all(exp.TimeToStr):
        form = told.args["format"]
        if isinstance(form, exp.DPipe):
            form = Snowflake.format_time(simplify(form))
        if form.is_string:
            told.set("format", exp.Literal.string(form.name.replace("%-d", "%d")))


def _put_home(put: Any) -> None:
    target = put.args["target"].name.strip("'")
    name = f"@{HOME}{target.removeprefix('@~')}" if target.startswith("@~") else target
    put.set("target", exp.var(name))


def _drop_what_is_declared_only(create: Any) -> None:
    # DuckDB's temporary tables have no schema; dbt's have: leave those permanent.
    gone = list(create.find_all(exp.TemporaryProperty)) if create.find(exp.Table).db else []
    if isinstance(create.this, exp.Schema):
        gone += create.this.find_all(*DECLARED_ONLY)
    for node in gone:
        inside = isinstance(node.parent, exp.Constraint | exp.ColumnConstraint)
        (node.parent if inside else node).pop()


def _copy_a_clone(create: Any) -> None:
    """Fakesnow clones into new tables only; a copy also takes the place of an old one."""
    if create.args.get("replace") and (clone := create.args.get("clone")):
        create.set("clone", None)
        create.set("expression", exp.select("*").from_(clone.this))


def _file_source(files: list[str], kind: str) -> str:
    """A DuckDB relation with the columns c1 (a JSON record) and seq."""
    if not files:
        return "(select null::json as c1, 0 as seq limit 0)"
    names = exp.array(*(exp.Literal.string(f) for f in files), dialect="duckdb").sql("duckdb")
    if kind == "JSON":
        read = f"read_ndjson_objects({names}, {LONG})"
        return f"(select json as c1, row_number() over () as seq from {read})"  # noqa: S608
    if kind == "PARQUET":
        read = f"read_parquet({names}) as t"
        return f"(select to_json(t) as c1, row_number() over () as seq from {read})"  # noqa: S608
    raise NotImplementedError(f"SELECT from staged {kind} files")


def _fields(select: Any) -> dict[str, str] | None:
    """The keys of staged records that a query casts, as DuckDB is to read them; None for others."""
    found: dict[str, str] = {}
    for parameter in select.find_all(exp.Parameter):
        cell, cast = parameter.parent, parameter.parent.parent
        path = cell.args.get("expression") if isinstance(cell, exp.JSONExtract) else None
        if not path or len(path.expressions) != 2 or not isinstance(cast, exp.Cast):
            return None
        kind = "JSON" if cast.to.this in NESTED else "VARCHAR"
        if found.setdefault(path.expressions[1].this, kind) != kind:
            return None
    return found if len({key.lower() for key in found}) == len(found) else None


def _field_source(files: list[str], fields: dict[str, str]) -> Any:
    """A DuckDB relation with a column for each key: a record is parsed once.

    It is text to sqlglot: fakesnow would take the columns for a Snowflake object.
    """
    names = exp.array(*(exp.Literal.string(f) for f in files), dialect="duckdb").sql("duckdb")
    pairs = (f"{exp.Literal.string(key)}: '{kind}'" for key, kind in fields.items())
    return exp.var(f"read_ndjson({names}, columns={{{', '.join(pairs)}}}, {LONG})")


def _staged_cell(node: Any, fields: dict[str, str] | None) -> Any:
    if fields and isinstance(node, exp.JSONExtract) and isinstance(node.this, exp.Parameter):
        return exp.column(node.expression.expressions[1].this, quoted=True)
    if isinstance(node, exp.Parameter) and node.name == "1":
        return exp.column("C1", quoted=True)
    if isinstance(node, exp.Seq1 | exp.Seq2 | exp.Seq4 | exp.Seq8):
        return exp.column("SEQ", quoted=True)
    return node


def _qualify(then: Any, source: str) -> None:
    if isinstance(then, exp.Update):
        for assignment in then.expressions:
            assignment.this.set("table", None)
    elif isinstance(then, exp.Insert):
        for column in then.expression.find_all(exp.Column):
            if not column.table:
                column.set("table", exp.to_identifier(source))


def _remove(ref: str) -> Any:
    files = home_files(ref)
    for path in files:
        path.unlink(missing_ok=True)
    for folder in {path.parent for path in files}:
        if not any(folder.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)
    names: list[Any] = [(path.name, "removed") for path in files] or [(None, None)]
    rows = exp.values(names, alias="t", columns=["name", "result"])
    return exp.select("*").from_(rows).limit(len(files))
