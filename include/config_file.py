"""Configuration files in YAML, read value by value; every error names file, line and key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from include.errors import ConfigError, nearest, one_line


class ConfigFile:
    """A file's content, and the errors to raise for it.

    Args:
        name: What errors call the file.
        text: What is in it.
        error: What is raised.

    Attributes:
        content: What the YAML says; None where it says nothing.

    Raises:
        ConfigError: It is not YAML, or names a key twice.
    """

    def __init__(self, name: object, text: str, error: type[ConfigError]) -> None:
        self._name = name
        self._error = error
        self._lines: dict[str, int] = {}
        try:
            self.content = yaml.safe_load(text)
            for key, line in _keys(yaml.compose(text, yaml.SafeLoader), ""):
                if key in self._lines:
                    first = self._lines[key]
                    raise self._error(f"{name}:{line}: {key}: stands in line {first} already")
                self._lines[key] = line
        except yaml.MarkedYAMLError as problem:
            line = problem.problem_mark.line + 1 if problem.problem_mark else 0
            why = one_line(f"{problem.context or ''} {problem.problem}")
            raise error(f"{name}:{line}: not YAML: {why}") from None

    def fail(self, key: str, why: str) -> ConfigError:
        """The error to raise for a key: its line, or that of the key around it."""
        around = key
        while around and around not in self._lines:
            around = around.rpartition(".")[0]
        where = f"{self._name}:{self._lines[around]}" if around else str(self._name)
        return self._error(f"{where}: {key}: {why}" if key else f"{where}: {why}")

    def mapping(self, value: Any, key: str, known: Iterable[str] = ()) -> dict[str, Any]:
        """A mapping, with no other keys than those known, where some are.

        Raises:
            ConfigError: It is none, or has another key; the message names the nearest.
        """
        if not isinstance(value, dict):
            raise self.fail(key, f"expected keys and values, found {value!r}")
        for name in value:
            if known and name not in known:
                where = f"{key}.{name}" if key else str(name)
                raise self.fail(where, "unknown key" + nearest(name, known))
        return value

    def choice(self, value: Any, key: str, known: tuple[str, ...]) -> str:
        """One of the values known.

        Raises:
            ConfigError: It is another; the message names the nearest.
        """
        if value not in known:
            raise self.fail(key, f"{value!r} is not known" + nearest(value, known))
        return str(value)

    def flag(self, value: Any, key: str) -> bool:
        """True or false.

        Raises:
            ConfigError: It is neither.
        """
        if not isinstance(value, bool):
            raise self.fail(key, f"expected true or false, found {value!r}")
        return value


def _keys(node: yaml.Node | None, around: str) -> Iterator[tuple[str, int]]:
    """Every key of a document by its path (``streams.orders.table``), and its line."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = f"{around}.{key.value}" if around else str(key.value)
            yield path, key.start_mark.line + 1
            yield from _keys(value, path)
