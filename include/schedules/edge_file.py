"""Edge files: what Airflow needs to know of a schedule, without dbt or networkx.

``dags/edges/<schedule>.pickle`` holds builtins only, at a fixed protocol, sorted, so that the same
project gives the same bytes. It is read by an unpickler that knows no names at all: whatever a
foreign file asks for, nothing is imported and nothing runs. Its fingerprint, taken over all else
that is in it, tells a file that was changed or cut by accident; it is no signature.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn, Self

from include.errors import EdgeFileError
from include.memory import no_collections

FORMAT = 4
PROTOCOL = 4
MAX_BYTES = 16 * 1024 * 1024
BUILT = ("model", "seed", "snapshot", "function")
TESTED_ONLY = ("source", "ephemeral", "test")
GATINGS = ("model", "none")
POLICIES = ("last", "any", "skip")
HOOKS = ("on-run-start", "on-run-end")
TASK_PER = ("model", "build", "chain")
OPTIONS = ("owner", "pool", "pool_slots", "retries", "timeout")
SELDOM = ("options", "skip_if_unchanged", "reads")  # of a node; not written where they are empty


@dataclass(frozen=True, slots=True)
class DataTest:
    """A data test.

    Attributes:
        id: dbt's unique_id.
        select: What dbt must select to run just this test.
    """

    id: str
    select: str

    @property
    def name(self) -> str:
        """Its name, without what dbt adds to keep ids apart.

        >>> DataTest("test.shop.unique_orders_id.fed79b3a6e", "").name
        'unique_orders_id'
        """
        return re.sub(r"\.[0-9a-f]{10}$", "", self.id.split(".", 2)[2])


@dataclass(frozen=True, slots=True)
class Node:
    """What one task builds, and one tests.

    Attributes:
        id: dbt's unique_id.
        kind: One of :data:`BUILT`; or of :data:`TESTED_ONLY`, which have a test task and no other:
            a source or an ephemeral model without a parent in the schedule, a test of no node.
        name: Its name, unique in the schedule; task ids are made of it.
        select: What dbt must select to build just this node.
        tags: dbt's tags, sorted.
        tests: The tests that this node's test task runs, by id.
        test_parents: Ids of the other nodes that must be built before those tests, sorted.
        options: What its tasks are told: any of :data:`OPTIONS`, ``timeout`` in seconds; sorted.
        skip_if_unchanged: Whether a run may leave it out where nothing it reads has changed.
        reads: Then the ids of all that it reads, directly or through ephemeral models: sources and
            whatever dbt builds, in this schedule, another or none; sorted.
    """

    id: str
    kind: str
    name: str
    select: str
    tags: tuple[str, ...]
    tests: tuple[DataTest, ...]
    test_parents: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    skip_if_unchanged: bool = False
    reads: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From builtins."""
        told = {
            "tags": tuple(values["tags"]),
            "tests": tuple(DataTest(**test) for test in values["tests"]),
            "test_parents": tuple(values["test_parents"]),
            "options": dict(values.get("options", {})),
            "reads": tuple(values.get("reads", ())),
        }
        return cls(**{**values, **told})


@dataclass(frozen=True, slots=True)
class ForeignParent:
    """An edge that comes from another schedule.

    Attributes:
        id: dbt's unique_id of the parent.
        name: The parent's name.
        child: The id of the node that reads it, directly or through what is in no schedule.
        schedules: The schedules that build the parent, sorted.
        policy: ``last``, ``any`` or ``skip``; see `include.schedules.schedule_file.Policy`.
        max_lag: Hours, for ``any``; else 0.
    """

    id: str
    name: str
    child: str
    schedules: tuple[str, ...]
    policy: str
    max_lag: int

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From builtins."""
        return cls(**{**values, "schedules": tuple(values["schedules"])})


@dataclass(frozen=True, slots=True)
class Freshness:
    """A source whose freshness dbt can check.

    Attributes:
        id: dbt's unique_id.
        name: Its name, ``source.shop.orders``.
        select: What ``dbt source freshness`` must select to check just this source.
    """

    id: str
    name: str
    select: str


@dataclass(frozen=True, slots=True)
class EdgeFile:
    """One schedule's part of a dbt project.

    Attributes:
        schedule: The selector's name.
        manifest: The schema of the manifest it was made of, ``v12``.
        fingerprint: SHA-256 over all else.
        test_gating: ``model`` or ``none``: whether children wait for their parents' tests.
        max_wait: Hours until a waiting gate fails.
        nodes: By id.
        edges: (parent, child) ids; transitively reduced, sorted.
        foreign_parents: By id and child.
        hooks: Those of :data:`HOOKS` for which the project, or a package of it, has a hook.
        task_per: ``model``: a task builds a node and another tests it; ``build``: one does both;
            ``chain``: one for each of `include.schedules.chains.chains`.
        freshness: The sources that its nodes read, directly or through ephemeral models, and whose
            freshness is to be checked; by id.
        deadline: Seconds after a run's logical date at which it is late; 0 for never.
        docs: Whether each run makes dbt's documentation at its end; not written where it does not.
    """

    schedule: str
    manifest: str
    fingerprint: str
    test_gating: str
    max_wait: int
    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]
    foreign_parents: tuple[ForeignParent, ...]
    hooks: tuple[str, ...] = ()
    task_per: str = "model"
    freshness: tuple[Freshness, ...] = ()
    deadline: int = 0
    docs: bool = False


class _BuiltinsOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def sealed(edges: EdgeFile) -> EdgeFile:
    """The same with its fingerprint."""
    return replace(edges, fingerprint=_fingerprint(_content(edges)))


def to_bytes(edges: EdgeFile) -> bytes:
    """The bytes of an edge file: the same for the same content."""
    return _dumps(_content(edges))


def _content(edges: EdgeFile) -> dict[str, Any]:
    content = {"format": FORMAT, **asdict(edges)}
    content["nodes"] = [_without_seldom(node) for node in content["nodes"]]
    if not edges.docs:
        del content["docs"]
    return content


def _without_seldom(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if value or key not in SELDOM}


def _fingerprint(content: Mapping[str, Any]) -> str:
    return sha256(_dumps({**content, "fingerprint": ""})).hexdigest()


def _dumps(content: dict[str, Any]) -> bytes:
    # A pickler writes an object that it has seen as a reference: equal strings are made one, so
    # that the bytes depend on values alone.
    stream = io.BytesIO()
    pickle.Pickler(stream, protocol=PROTOCOL).dump(_canonical(content, {}))
    return stream.getvalue()


def _canonical(value: Any, seen: dict[str, str]) -> Any:
    if isinstance(value, str):
        return seen.setdefault(value, value)
    if isinstance(value, dict):
        return {seen.setdefault(k, k): _canonical(item, seen) for k, item in value.items()}
    if isinstance(value, tuple | list):
        return [_canonical(item, seen) for item in value]
    return value


@no_collections()
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
        told = content["format"]
        newer = isinstance(told, int) and told > FORMAT
        hint = ", a newer Sluice wrote it" if newer else ""
        raise _refused(path, f"its format is {told!r}, this Sluice reads {FORMAT}{hint}")
    try:
        fingerprint = _fingerprint(content)
        found = EdgeFile(
            schedule=content["schedule"],
            manifest=content["manifest"],
            fingerprint=content["fingerprint"],
            test_gating=content["test_gating"],
            max_wait=content["max_wait"],
            nodes=tuple(Node.from_dict(node) for node in content["nodes"]),
            edges=tuple((str(parent), str(child)) for parent, child in content["edges"]),
            foreign_parents=tuple(
                ForeignParent.from_dict(parent) for parent in content["foreign_parents"]
            ),
            hooks=tuple(content["hooks"]),
            task_per=content["task_per"],
            freshness=tuple(Freshness(**source) for source in content["freshness"]),
            deadline=int(content["deadline"]),
            docs=content.get("docs", False) is True,
        )
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise _refused(path, f"its content is not of the expected form ({error!r})") from None
    if found.fingerprint != fingerprint:
        raise _refused(path, "it was changed after it was written")
    if why := _contradiction(found):
        raise _refused(path, why)
    return found


def _contradiction(found: EdgeFile) -> str:
    ids = {node.id for node in found.nodes}
    ends = {end for edge in found.edges for end in edge}
    ends |= {parent.child for parent in found.foreign_parents}
    ends |= {key for node in found.nodes for key in node.test_parents}
    if not ends <= ids:
        return "an edge names a node that is not in it"
    if any(node.kind not in (*BUILT, *TESTED_ONLY) for node in found.nodes):
        return f"a node's kind is not one of {', '.join((*BUILT, *TESTED_ONLY))}"
    if found.test_gating not in GATINGS:
        return f"its test_gating is not one of {', '.join(GATINGS)}"
    if any(parent.policy not in POLICIES for parent in found.foreign_parents):
        return f"a gate's policy is not one of {', '.join(POLICIES)}"
    if found.task_per not in TASK_PER:
        return f"its task_per is not one of {', '.join(TASK_PER)}"
    if any(hook not in HOOKS for hook in found.hooks):
        return f"a hook is not one of {', '.join(HOOKS)}"
    if any(node.options.keys() - set(OPTIONS) for node in found.nodes if node.options):
        return f"a node's option is not one of {', '.join(OPTIONS)}"
    if any(not isinstance(key, str) for node in found.nodes for key in node.reads):
        return "a node reads what is no id"
    return ""


def _refused(path: Path, why: str) -> EdgeFileError:
    error = EdgeFileError(f"{path}: {why}; write it anew with make edges")
    error.why = why
    return error
