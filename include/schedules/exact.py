"""Selectors that find one resource: dbt's own ``fqn``, narrowed where it would find more.

dbt's fqn method finds whatever begins with the selector's parts, with or without the package: a
model `orders` and the models of a folder `orders/` alike.
https://docs.getdbt.com/reference/node-selection/methods#fqn
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property

from include.errors import DbtProjectError
from include.schedules.project import Project, Resource


class ExactSelectors:
    """Selectors for the resources of one project."""

    def __init__(self, project: Project) -> None:
        self._resources = project.resources
        self._match = project.match

    def select(self, resource: Resource, allowed: Collection[str]) -> str:
        """A selector that finds a resource, and others of its kind only where allowed.

        Args:
            resource: What to find.
            allowed: Ids that may be found with it.

        Raises:
            DbtProjectError: dbt's methods cannot tell it from another.
        """
        if resource.id not in self._ambiguous:
            return resource.select
        for select in self._narrower(resource):
            known = self._match(select) & self._resources.keys()
            found = {key for key in known if self._resources[key].kind == resource.kind}
            if resource.id in found and found <= set(allowed):
                return select
        raise DbtProjectError(
            f"{resource.file}: dbt cannot select {resource.id} alone, for {resource.select} finds"
            " others too; give it a name that is not a folder's or another's"
        )

    @cached_property
    def _ambiguous(self) -> frozenset[str]:
        groups: dict[str, list[Resource]] = {}
        for resource in self._resources.values():
            groups.setdefault(resource.kind, []).append(resource)
        return frozenset(key for group in groups.values() for key in _ambiguous(group))

    def _narrower(self, resource: Resource) -> Iterator[str]:
        yield resource.select
        yield f"{resource.select},file:{_file(resource)}"
        yield f"{resource.select},path:{resource.file}"
        if resource.kind == "test":
            for tested in (self._resources[p] for p in resource.parents if p in self._resources):
                for one in (tested.select, f"path:{tested.file}", f"file:{_file(tested)}"):
                    yield f"{resource.select},{one}+1"


def _ambiguous(group: Sequence[Resource]) -> Iterator[str]:
    """Ids whose selector may find others of their kind too; a few too many do no harm."""
    found: Counter[tuple[str, ...] | str] = Counter()
    names = {resource.id: _parts(resource) for resource in group}
    for parts in names.values():
        ends = range(1, len(parts) + 1)
        starts = {parts[:n] for n in ends} | {parts[1:n] for n in ends}
        # A name finds its node wherever that is, of any version; so do name.v2 and name_v2.
        starts |= {parts[-n:] for n in ends} | {parts[-n:-1] for n in ends}
        found.update([*starts, "_".join(parts[-2:])])
    for resource in group:
        parts = names[resource.id]
        if found[parts] > 1 or found["_".join(parts[-2:])] > 1 or "?" in resource.select:
            yield resource.id


def _file(resource: Resource) -> str:
    return resource.file.rpartition("/")[2]


def _parts(resource: Resource) -> tuple[str, ...]:
    return tuple(resource.select.partition(":")[2].partition(",")[0].split("."))
