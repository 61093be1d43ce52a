"""Edge files: what Airflow needs to know of a schedule, without dbt or networkx.

``dags/edges/<schedule>.pickle`` holds builtins only, at a fixed protocol, sorted, so that the same
project gives the same bytes. It is read by an unpickler that knows no names at all: whatever a
foreign file asks for, nothing is imported and nothing runs.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

from include.errors import EdgeFileError

FORMAT = 1
PROTOCOL = 4
MAX_BYTES = 16 * 1024 * 1024
KINDS = ("model", "seed", "snapshot")


@dataclass(frozen=True)
class DataTest:
    """A data test.

    Attributes:
        id: dbt's unique_id.
        select: What dbt must select to run just this test.
    """

    id: str
    select: str


@dataclass(frozen=True)
class Node:
    """What one task builds.

    Attributes:
        id: dbt's unique_id.
        kind: ``model``, ``seed`` or ``snapshot``.
        name: Its name, unique in the schedule; task ids are made of it.
        select: What dbt must select to build just this node.
        tags: dbt's tags, sorted.
        tests: The tests that this node's test task runs, by id.
        test_parents: Ids of the other nodes that must be built before those tests, sorted.
    """

    id: str
    kind: str
    name: str
    select: str
    tags: tuple[str, ...]
    tests: tuple[DataTest, ...]
    test_parents: tuple[str, ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From builtins."""
        tests = tuple(DataTest(**test) for test in values["tests"])
        listed = {"tags": tuple(values["tags"]), "test_parents": tuple(values["test_parents"])}
        return cls(**{**values, **listed, "tests": tests})


@dataclass(frozen=True)
class EdgeFile:
    """One schedule's part of a dbt project.

    Attributes:
        schedule: The selector's name.
        fingerprint: SHA-256 over the content, to see whether the file is up to date.
        nodes: By id.
        edges: (parent, child) ids; transitively reduced, sorted.
        foreign_parents: (foreign id, child id): what is read from other schedules, sorted.
    """

    schedule: str
    fingerprint: str
    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]
    foreign_parents: tuple[tuple[str, str], ...]


class _BuiltinsOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def to_bytes(edges: EdgeFile) -> bytes:
    """The bytes of an edge file: the same for the same content."""
    # A round through repr-equal copies keeps the pickler's memo from depending on identities.
    content = _fresh({"format": FORMAT, **asdict(edges)})
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, protocol=PROTOCOL)
    pickler.fast = True
    pickler.dump(content)
    return stream.getvalue()


def _fresh(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _fresh(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_fresh(item) for item in value]
    return value


def read_edge_file(path: Path) -> EdgeFile:
    """Read a schedule's edges.

    Args:
        path: ``dags/edges/<schedule>.pickle``.

    Raises:
        EdgeFileError: It is missing, too large, foreign, of another format or tampered with; one
            line that names the file and says what to do.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise _refused(path, f"it has {size} bytes, at most {MAX_BYTES} are read")
        content = _BuiltinsOnly(io.BytesIO(path.read_bytes())).load()
    except FileNotFoundError:
        raise _refused(path, "it is missing") from None
    except EdgeFileError:
        raise
    except Exception as error:  # noqa: BLE001  (an unpickler can raise anything)
        raise _refused(path, f"it is not an edge file ({error})") from None
    return _checked(path, content)


def _checked(path: Path, content: Any) -> EdgeFile:
    if not isinstance(content, dict) or "format" not in content:
        raise _refused(path, "it is not an edge file")
    if content["format"] != FORMAT:
        raise _refused(path, f"its format is {content['format']!r}, this Sluice reads {FORMAT}")
    try:
        nodes = tuple(Node.from_dict(node) for node in content["nodes"])
        edges = tuple((str(parent), str(child)) for parent, child in content["edges"])
        foreign = tuple((str(p), str(c)) for p, c in content["foreign_parents"])
        found = EdgeFile(content["schedule"], content["fingerprint"], nodes, edges, foreign)
    except (KeyError, TypeError, ValueError) as error:
        raise _refused(path, f"its content is not of the expected form ({error!r})") from None
    ids = {node.id for node in nodes}
    if not {end for edge in edges for end in edge} <= ids:
        raise _refused(path, "an edge names a node that is not in it")
    if any(node.kind not in KINDS for node in nodes):
        raise _refused(path, f"a node's kind is not one of {', '.join(KINDS)}")
    return found


def _refused(path: Path, why: str) -> EdgeFileError:
    return EdgeFileError(f"{path}: {why}; write it anew with make edges")
