"""The warm dbt process of a measurement: started before it or by it, found while it runs, ended."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psutil

from include.local.services import end_tree
from include.settings import Settings
from include.transform.warm_dbt import SERVER, WarmDbt


class WarmProcess:
    """The warm dbt process for the project of one root.

    Args:
        here: Folders.
        environment: What ``profiles.yml`` reads.
    """

    def __init__(self, here: Settings, environment: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sluice-bench-warm-")  # a short path
        here = replace(here, runtime=Path(self._folder.name))
        self._warm_dbt = WarmDbt.of(environment, here)
        self._found: list[int] = []

    @property
    def settings(self) -> dict[str, str]:
        """What tells Airflow's tasks where the process is, or is to be."""
        return {"SLUICE_RUNTIME": self._folder.name}

    def start(self) -> None:
        """Start it; it warms while others go on."""
        self._warm_dbt.start()

    def pids(self) -> list[int]:
        """The process that commands are forked from, or none."""
        if not self._found or not all(map(psutil.pid_exists, self._found)):
            self._found = self._search()
        return self._found

    def _search(self) -> list[int]:
        found = []
        for process in psutil.process_iter(["cmdline", "ppid"]):
            words = process.info["cmdline"] or []
            if SERVER in words and str(self._warm_dbt.socket) in words:
                found.append(process)
        forked_from = {process.pid for process in found}
        return [process.pid for process in found if process.info["ppid"] not in forked_from]

    def stop(self) -> None:
        """End it and what it runs; it may be started again."""
        for pid in self.pids():
            end_tree(pid)

    def close(self) -> None:
        """End it for good."""
        self.stop()
        self._folder.cleanup()
