"""Run dbt by hand as tasks reach it: on the local Snowflake, or on the account of this environment.

    make dbt ARGS="run --select fct_orders"

Where SNOWFLAKE_ACCOUNT is set, `dbt/profiles.yml` reads all of the connection from the environment
(docs/snowflake-setup.md); else it is the warehouse of `make up`. It is dbt itself: with the
project's hooks, and what it writes in `dbt/target`. Runs in dbt's environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from include.connections import SnowflakeConnection
from include.errors import LocalError, status_of
from include.local.ports import answers
from include.settings import (
    Settings,
    child_environment,
    load_local_environment,
    local_password,
    settings,
)
from include.transform.dbt_command import project_options
from include.transform.plain_dbt import require_program

OURS = (sys.executable, "-m", "include.transform.dbt_program", "whole")


def environment(here: Settings) -> dict[str, str]:
    """What `profiles.yml` reads.

    Raises:
        LocalError: There is no account, and no local warehouse.
    """
    if here.snowflake_account:
        return child_environment()
    if not (here.is_local and answers(here.snowflake_port)):
        raise LocalError(
            f"no local Snowflake answers on 127.0.0.1:{here.snowflake_port}: run make up first, or"
            " set SNOWFLAKE_ACCOUNT and its like (docs/snowflake-setup.md)"
        )
    connection = SnowflakeConnection.local(here.snowflake_port, local_password())
    return child_environment(connection.dbt_environment())


def run(arguments: Sequence[str]) -> None:
    """Become dbt.

    Args:
        arguments: What follows ``dbt`` on a command line, but for where the project is.

    Raises:
        SluiceError: There is no warehouse, or a setting cannot be used.
    """
    load_local_environment()
    here = settings()
    if here.dbt_command:
        require_program(here.dbt_command)
    line = [*(here.dbt_command or OURS), *arguments, *project_options(here.dbt_project)]
    os.execvpe(line[0], line, environment(here))  # noqa: S606  (no shell is what we want)


if __name__ == "__main__":
    sys.exit(status_of(lambda: run(sys.argv[1:])))
