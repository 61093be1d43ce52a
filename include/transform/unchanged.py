"""Whether a task may leave what it builds as it is: nothing that it reads has news.

Each event of a raw table's or a node's asset tells the last news of it: the run that last changed
its rows. An event of a run that changed nothing tells the same news again, so that the newest event
is all that has to be read. A task remembers the news that it has built; whatever is unknown counts
as news.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from include.connections import which_connection
from include.transform.project_files import project_files

NEWS = "news"  # the key in an event's extra


@dataclass(frozen=True)
class Seen:
    """What a task has built of.

    Attributes:
        news: Of each thing that it reads, its last news, by dbt's unique_id; None where unknown.
        version: Of the project and the connection.
    """

    news: Mapping[str, str | None]
    version: str


@dataclass(frozen=True)
class Built:
    """What is remembered of a task's last build.

    Attributes:
        seen: What it was built of.
        news: What children are told: the run that built it.
        is_tested: Whether its tests have passed since.
    """

    seen: Seen
    news: str
    is_tested: bool

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> Self | None:
        """The inverse of :meth:`to_dict`; None for nothing."""
        return cls(**{**values, "seen": Seen(**values["seen"])}) if values else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def why_build(built: Built | None, seen: Seen) -> str:
    """Why a task has to build; empty where it may leave all as it is.

    Args:
        built: What is remembered.
        seen: What there is now.

    >>> now = Seen({"source.shop.shop.orders": "day/run_2"}, "v1")
    >>> why_build(None, now)
    'nothing is known of a build'
    >>> why_build(Built(Seen({"source.shop.shop.orders": "day/run_1"}, "v1"), "", True), now)
    'news of source.shop.shop.orders'
    >>> why_build(Built(now, "", False), now)
    'its tests have not passed'
    >>> why_build(Built(now, "", True), now)
    ''
    """
    if built is None:
        return "nothing is known of a build"
    if not built.is_tested:
        return "its tests have not passed"
    if built.seen.version != seen.version:
        return "the project or the connection has changed"
    unknown = [key for key, news in seen.news.items() if news is None]
    if unknown:
        return f"nothing tells whether there is news of {', '.join(unknown)}"
    changed = [key for key, news in seen.news.items() if built.seen.news.get(key) != news]
    return f"news of {', '.join(changed)}" if changed else ""


def version(project: Path, environment: Mapping[str, str]) -> str:
    """A hash of all that is in a dbt project, and of what ``profiles.yml`` reads but for secrets.

    A changed macro or package may be part of any model: any change is one of all.

    Args:
        project: The folder of ``dbt_project.yml``.
        environment: What ``profiles.yml`` reads.
    """
    total = hashlib.sha256()
    total.update(repr(sorted(which_connection(environment).items())).encode())
    for path in sorted(map(Path, project_files(project))):
        with suppress(FileNotFoundError):  # an editor's, gone since it was listed
            content = hashlib.sha256(path.read_bytes()).digest()
            total.update(f"{path.relative_to(project)}\0".encode() + content)
    return total.hexdigest()
