"""Task options: what a dbt task needs of Airflow beside its order, in YAML and in dbt's meta."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from include.config_file import ConfigFile
from include.errors import DbtProjectError
from include.schedules.edge_file import OPTIONS
from include.schedules.project import Resource

META = "config.meta.airflow"
SKIP = "skip_if_unchanged"
DURATION = re.compile(r"([1-9]\d*)([smhd])")
SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


class OptionsFile(ConfigFile):
    """Reads task options out of what a file says."""

    def options(self, content: Any, key: str, others: Iterable[str] = ()) -> dict[str, Any]:
        """Task options, sorted, ``timeout`` in seconds.

        Args:
            content: A mapping of some of `OPTIONS`.
            key: Where it stands.
            others: Keys that may stand there too, and are left out.

        Raises:
            ConfigError: A key is unknown, or a value not of the form that is expected.
        """
        values = self.mapping(content, key, (*OPTIONS, *others))
        return {k: self._option(values[k], f"{key}.{k}", k) for k in OPTIONS if k in values}

    def _option(self, value: Any, key: str, name: str) -> Any:
        if name == "timeout":
            return self.seconds(value, key)
        if name in ("pool_slots", "retries"):
            return self._number(value, key, 1 if name == "pool_slots" else 0)
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise self.fail(key, f"expected a name, found {value!r}")
        return value

    def _number(self, value: Any, key: str, least: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.fail(key, f"expected a whole number, {least} or more, found {value!r}")
        return value

    def seconds(self, value: Any, key: str) -> int:
        """The seconds of a duration such as ``30m``.

        Raises:
            ConfigError: It is none.
        """
        if not (found := DURATION.fullmatch(str(value))):
            raise self.fail(key, f"expected s, m, h or d, e.g. 30m or 2h, found {value!r}")
        return int(found[1]) * SECONDS[found[2]]


def of_node(resource: Resource) -> tuple[dict[str, Any], bool]:
    """What a node's own meta tells: its task options, and whether it may be skipped.

    Raises:
        DbtProjectError: The meta is not of the form that is expected; it names node and key.
    """
    if resource.meta is None:
        return {}, False
    file = OptionsFile(f"{resource.file}: {resource.id}", "", DbtProjectError)
    options = file.options(resource.meta, META, (SKIP,))
    return options, file.flag(resource.meta.get(SKIP, False), f"{META}.{SKIP}")


def options_text(options: Mapping[str, Any]) -> str:
    """Task options as schedules.yml has them, in one line.

    >>> options_text({"pool": "heavy", "timeout": 7200})
    'pool: heavy, timeout: 2h'
    """
    return ", ".join(f"{k}: {duration(v) if k == 'timeout' else v}" for k, v in options.items())


def duration(seconds: int) -> str:
    """Seconds as schedules.yml has them, in the largest unit that leaves a whole number.

    >>> duration(7200), duration(5400)
    ('2h', '90m')
    """
    unit = next(unit for unit, length in SECONDS.items() if seconds % length == 0)
    return f"{seconds // SECONDS[unit]}{unit}"
