"""Build and test what a branch has changed in the dbt project, and all that comes after it.

    make build-changed REV=main

It is built in schemas of its own, which are dropped at the end; what it reads and has not changed
is production's (dbt's ``--defer``). Where SNOWFLAKE_ACCOUNT is set, production is in that account.
Else a Postgres and a local Snowflake are started, and what is read of production is made there
first: raw tables out of the sample shop, and models as they are at the revision.
"""

from __future__ import annotations

import argparse
import re
import secrets
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from include.connections import SnowflakeConnection
from include.errors import LocalError, status_of
from include.extract_load.source import Source, load_source
from include.local.throwaway import Throwaway, throwaway
from include.process import ended_by_signals
from include.settings import settings
from include.transform.results import DbtResult
from scripts.changed_nodes import Change, table
from scripts.revision import extract
from scripts.whole_dbt import WholeDbt

SCALE = 0.05  # of the sample shop
NO_TESTS = [word for kind in ("test", "unit_test") for word in ("--exclude-resource-type", kind)]


class Trial:
    """The project as it is, beside what it was.

    Args:
        folder: The project's.
        since: The revision that is production.
        schema: What the names of the schemas begin with that are built in.
        scratch: A folder for all else.
    """

    def __init__(self, folder: Path, since: str, schema: str, scratch: Path) -> None:
        self._folder, self._since, self._schema, self._scratch = folder, since, schema, scratch
        self._before, self._state = scratch / "before", scratch / "state"
        self._changed = ["--select", "state:modified+", "--state", str(self._state)]

    def change(self, environment: Mapping[str, str]) -> Change:
        """What has changed since.

        Raises:
            LocalError: There is no such revision, or the project does not parse.
            DbtProjectError: Something would be built among production's schemas.
        """
        extract(self._folder, self._since, self._before)
        if (packages := self._folder / "dbt_packages").exists():
            (self._before / "dbt_packages").symlink_to(packages)
        self._production(environment).run("parse")
        now = self._own(environment)
        return Change.of(now.listed(*self._changed), now.manifest(), self._schema)

    def build(self, change: Change, environment: Mapping[str, str]) -> DbtResult:
        """Build and test what has changed, then drop it."""
        now = self._own(environment)
        try:
            return now.build(*self._changed, "--defer", "--favor-state")
        finally:
            now.drop(change.schemas)

    def make_production(self, change: Change, local: Throwaway) -> None:
        """Make what has not changed, as far as it is read.

        Raises:
            LocalError: It reads a table that the sample shop does not have.
            SluiceError: It cannot be made.
        """
        here = settings()
        no_shop = Source("shop", "", "", "", ())
        shop = load_source(here.sources / "shop.yml") if here.has_shop else no_shop
        known = {f"{shop.target_schema}.{s.name}".upper(): s for s in shop.streams}
        if strange := [name for name in change.tables if name not in known]:
            raise LocalError(
                f"{strange[0]}: not a table of the sample shop; set SNOWFLAKE_ACCOUNT and what"
                " dbt/profiles.yml reads beside it, to build in an account"
            )
        if change.tables:
            local.fill(SCALE)
            rows = local.load(shop, [known[name] for name in change.tables])
            tell(f"raw tables loaded: {len(change.tables)}, rows: {rows:,}")
        if change.production:
            before = self._production(local.warehouse.dbt_environment())
            before.build("--select", *change.production, *NO_TESTS).raise_for_nodes()
            tell(f"nodes that it reads built as in {self._since}: {len(change.production)}")

    def _production(self, environment: Mapping[str, str]) -> WholeDbt:
        return WholeDbt(self._before, self._state, {**environment, "DBT_TARGET": "prod"})

    def _own(self, environment: Mapping[str, str]) -> WholeDbt:
        own = {"DBT_TARGET": "ci", "SNOWFLAKE_SCHEMA": self._schema}
        return WholeDbt(self._folder, self._scratch / "now", {**environment, **own})


def tell(line: str) -> None:
    """Say how far it is, on standard error."""
    sys.stderr.write(f"{line}\n")


def build_changed(folder: Path, since: str, schema: str) -> None:
    """Build what has changed, and print what came of it.

    Raises:
        SluiceError: It cannot be built, or a test failed.
    """
    account = settings().snowflake_account
    local = {} if account else SnowflakeConnection.local(0, "unset").dbt_environment()
    with tempfile.TemporaryDirectory(prefix="sluice-") as scratch:
        trial = Trial(folder, since, schema, Path(scratch))
        change = trial.change(local)
        if not change.nodes:
            sys.stdout.write(f"nothing to build has changed in {folder.name}/ since {since}\n")
            return
        where = account or "a local Snowflake"
        tell(f"nodes to build and test in {where}: {len(change.nodes)}")
        if account:
            found = trial.build(change, {})
        else:
            with throwaway(Path(scratch)) as made:
                trial.make_production(change, made)
                found = trial.build(change, made.warehouse.dbt_environment())
    sys.stdout.write(f"### Built and tested since {since}\n\n{table(found)}\n")
    found.raise_for_nodes()


def main() -> None:
    """Build what has changed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project-dir", type=Path, default=settings().dbt_project)
    parser.add_argument("--since", metavar="REV", default="main")
    parser.add_argument("--schema", default=f"CI_{secrets.token_hex(4).upper()}")
    given = parser.parse_args()
    if not re.fullmatch(r"CI_\w+", given.schema):
        raise LocalError(f"SCHEMA={given.schema}: expected CI_ and letters or digits, as CI_123")
    with ended_by_signals():
        build_changed(given.project_dir.resolve(), given.since, given.schema.upper())


if __name__ == "__main__":
    sys.exit(status_of(main))
