"""A source and a warehouse for one command, in a folder that goes away with it, on free ports."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from include.connections import PostgresConnection, SnowflakeConnection
from include.errors import LocalError, one_line
from include.extract_load.source import Source, Stream
from include.extract_load.steps import Steps
from include.process import child, end_with_parent, output_of
from include.settings import settings

FILL_SECONDS = 120
AT_ONCE = 2  # a target takes most of a core


class Forgetful:
    """What is remembered of a stream before its first load: nothing."""

    def get(self, _key: str, /) -> Any:
        """None."""
        return None

    def set(self, _key: str, _value: Any, /) -> None:
        """Forget it."""


@contextmanager
def server(name: str, folder: Path) -> Iterator[tuple[int, int]]:
    """Run a local server for as long as the block; yields its port and its process id.

    Args:
        name: ``postgres`` or ``snowflake``.
        folder: Where its data and its log go.

    Raises:
        LocalError: It did not start.
    """
    log, python = folder / f"{name}.log", settings().program("local", "python")
    line = [str(python), "-m", f"include.local.{name}", "--data", str(folder / name)]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "preexec_fn": end_with_parent}
    with log.open("wb") as file:
        with child(line, stderr=file, **options) as process:
            assert process.stdout  # noqa: S101  (it is a pipe)
            said = process.stdout.readline().decode()
            if not said:
                raise LocalError(f"{name} did not start: {one_line(log.read_text())}")
            yield int(said.rpartition(":")[2]), process.pid


@dataclass(frozen=True)
class Throwaway:
    """The sample shop beside an empty warehouse.

    Attributes:
        source: The shop.
        warehouse: The local Snowflake.
    """

    source: PostgresConnection
    warehouse: SnowflakeConnection

    def fill(self, scale: float) -> None:
        """Make the shop's rows; 1 is about 50,000."""
        python = settings().program("local", "python")
        line = [python, "-m", "include.local.shop_data", "fill", "--port", self.source.port]
        output_of([*line, "--scale", scale], FILL_SECONDS)

    def load(self, source: Source, streams: Sequence[Stream]) -> int:
        """Extract and load streams as tasks do; returns how many rows have arrived.

        Raises:
            SluiceError: As extract and load raise.
        """
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return sum(pool.map(lambda stream: self._load(source, stream), streams))

    def _load(self, source: Source, stream: Stream) -> int:
        steps = Steps(source, replace(stream, fast=True), "throwaway", Forgetful())
        steps.extract(self.source)
        return int(steps.load(self.warehouse)["rows"])


@contextmanager
def throwaway(folder: Path) -> Iterator[Throwaway]:
    """Run both for as long as the block; spools go to the folder, too.

    Args:
        folder: An empty folder, which the caller removes.
    """
    password = secrets.token_hex()
    os.environ |= {
        "SLUICE_ENV": "local",
        "SLUICE_LOCAL_PASSWORD": password,
        "SLUICE_SPOOL": str(folder / "spool"),
        # Else Snowflake's connector asks the network which cloud it runs in.
        "SNOWFLAKE_DISABLE_PLATFORM_DETECTION": "true",
    }
    with server("postgres", folder) as (source, _), server("snowflake", folder) as (warehouse, _):
        yield Throwaway(
            PostgresConnection.local(source, password),
            SnowflakeConnection.local(warehouse, password),
        )
