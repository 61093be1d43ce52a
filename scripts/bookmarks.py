"""Show, export, import or reset the bookmarks of a source's streams.

    python -m scripts.bookmarks show shop
    python -m scripts.bookmarks export shop > bookmarks.json
    python -m scripts.bookmarks import shop bookmarks.json
    python -m scripts.bookmarks reset shop orders

A bookmark is where the next extract of an incremental stream goes on; it lies in Airflow's asset
state store, on the asset of the raw table. A stream without one is read anew, as a whole. A load
that is running writes its own at its end: let runs end first.

SLUICE_AIRFLOW_URL and SLUICE_AIRFLOW_TOKEN name a deployment; without them it is the Airflow of
`make up`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from include.airflow_api import AirflowApi
from include.errors import LocalError, status_of
from include.extract_load.source import Source, load_source
from include.extract_load.steps import BOOKMARK
from include.local.airflow import Secrets, api
from include.settings import load_local_environment, settings


class Bookmarks:
    """The bookmarks of one source in one Airflow.

    Args:
        airflow: Its REST API.
        source: The source file's content.
    """

    def __init__(self, airflow: AirflowApi, source: Source) -> None:
        self._airflow = airflow
        self._source = source
        pattern = {"name_pattern": source.assets, "limit": 1000}
        assets = airflow.call("GET", "assets", params=pattern)["assets"]
        self._ids = {asset["name"].removeprefix(source.assets): asset["id"] for asset in assets}

    def read(self) -> dict[str, Any]:
        """Stream to bookmark, of the streams that have one."""
        found: dict[str, Any] = {}
        for name in (s.name for s in self._source.streams if s.name in self._ids):
            stored = self._airflow.call("GET", self._path(name))["asset_state_store"]
            found.update((name, entry["value"]) for entry in stored if entry["key"] == BOOKMARK)
        return found

    def write(self, bookmarks: Mapping[str, Any]) -> None:
        """Set the bookmarks of some streams.

        Raises:
            SourceFileError: The source has no such stream.
            LocalError: Airflow does not know its raw table.
        """
        paths = {name: self._path(self._source.stream(name).name) for name in bookmarks}
        for name, value in bookmarks.items():
            self._airflow.call("PUT", f"{paths[name]}/{BOOKMARK}", json={"value": value})

    def reset(self, streams: Sequence[str]) -> None:
        """Remove the bookmarks of some streams.

        Raises:
            SourceFileError: The source has no such stream.
            LocalError: Airflow does not know its raw table.
        """
        for path in [self._path(self._source.stream(name).name) for name in streams]:
            self._airflow.call("DELETE", f"{path}/{BOOKMARK}")

    def _path(self, stream: str) -> str:
        if stream not in self._ids:
            raise LocalError(
                f"Airflow knows no raw table {self._source.name}/{stream}: no DAG of its loads it"
            )
        return f"assets/{self._ids[stream]}/state-store"


def _show(bookmarks: Bookmarks, _rest: Sequence[str]) -> str:
    lines = []
    for stream, state in bookmarks.read().items():
        for found in state["bookmarks"].values():
            value = found.get("replication_key_value", "no row yet")
            lines.append(f"{stream:20} {found.get('replication_key', ''):20} {value}")
    return "\n".join(lines) or "no stream has a bookmark"


def _export(bookmarks: Bookmarks, _rest: Sequence[str]) -> str:
    return json.dumps(bookmarks.read(), indent=1, sort_keys=True)


def _import(bookmarks: Bookmarks, rest: Sequence[str]) -> str:
    if len(rest) != 1:
        raise LocalError("import needs one file, written by export")
    try:
        found = json.loads(Path(rest[0]).read_text())
    except (OSError, ValueError) as error:
        raise LocalError(f"{rest[0]}: {error}") from None
    bookmarks.write(found)
    return f"set: {', '.join(found)}"


def _reset(bookmarks: Bookmarks, rest: Sequence[str]) -> str:
    if not rest:
        raise LocalError("reset needs the names of streams")
    bookmarks.reset(rest)
    return f"read anew by the next extract: {', '.join(rest)}"


COMMANDS: dict[str, Callable[[Bookmarks, Sequence[str]], str]] = {
    "show": _show,
    "export": _export,
    "import": _import,
    "reset": _reset,
}


def _airflow() -> AirflowApi:
    here = settings()
    if here.airflow_url:
        return AirflowApi(here.airflow_url, here.airflow_token)
    return api(here.airflow_port, Secrets.of(here.local))


def main() -> None:
    """Do one command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("source", help="the name of a file in include/sources/")
    parser.add_argument("rest", nargs="*", metavar="stream or file")
    given = parser.parse_args()
    load_local_environment()
    source = load_source(settings().sources / f"{given.source}.yml")
    try:
        said = COMMANDS[given.command](Bookmarks(_airflow(), source), given.rest)
    except httpx.TransportError as error:
        raise LocalError(f"Airflow does not answer: {error}; start it with make up") from None
    sys.stdout.write(f"{said}\n")


if __name__ == "__main__":
    sys.exit(status_of(main))
