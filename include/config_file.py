"""Values of a configuration file, checked one by one; every error names the file and the key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from include.errors import ConfigError, nearest


class ConfigReader:
    """Checks values of one file.

    Args:
        file: What errors call it.
        error: What is raised.
    """

    def __init__(self, file: object, error: type[ConfigError]) -> None:
        self._file = file
        self._error = error

    def fail(self, key: str, why: str) -> ConfigError:
        """The error to raise for a key."""
        return self._error(f"{self._file}: {key}: {why}")

    def mapping(
        self, value: Any, key: str, known: Iterable[str] = (), unknown: str = "unknown key"
    ) -> dict[str, Any]:
        """A mapping, with no other keys than those known, where some are; `unknown` names others.

        Raises:
            ConfigError: It is none, or has another key; the message names the nearest.
        """
        if not isinstance(value, dict):
            raise self.fail(key, f"expected keys and values, found {value!r}")
        for name in value:
            if known and name not in known:
                where = f"{key}.{name}" if key else str(name)
                raise self.fail(where, unknown + nearest(name, known))
        return value

    def choice(self, value: Any, key: str, known: tuple[str, ...]) -> str:
        """One of the values known.

        Raises:
            ConfigError: It is another; the message names the nearest.
        """
        if value not in known:
            raise self.fail(key, f"{value!r} is not known" + nearest(value, known))
        return str(value)
