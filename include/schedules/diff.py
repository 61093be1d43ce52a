"""What a change of the dbt project does to its schedules, for a pull request and for --check."""

from __future__ import annotations

from collections.abc import Mapping

from include.schedules.edge_file import EdgeFile, Node
from include.schedules.plan import after, code, counted, gates, options
from include.schedules.task_options import duration


def changes(old: EdgeFile | None, new: EdgeFile | None) -> list[str]:
    """What is added, removed and re-wired in one schedule.

    Args:
        old: The edge file before; None where there was none.
        new: The edge file after; None where there is none.

    Returns:
        One line each, in Markdown; empty where nothing that matters differs.
    """
    if new is None or old is None:
        file = new or old
        verb = "adds" if new else "removes"
        return [f"{verb} the schedule, {counted(len(file.nodes), 'node')}"] if file else []
    before, now = {n.id: n for n in old.nodes}, {n.id: n for n in new.nodes}
    was, after_now = after(old), after(new)
    lines = []
    for key in sorted(now.keys() - before.keys()):
        tests = f", {counted(len(now[key].tests), 'test')}" if now[key].tests else ""
        lines.append(f"adds {now[key].kind} `{now[key].name}`{_after(after_now[key])}{tests}")
    for key in sorted(before.keys() - now.keys()):
        lines.append(f"removes {before[key].kind} `{before[key].name}`")
    for key in sorted(now.keys() & before.keys()):
        if was[key] != after_now[key]:
            lines.append(f"re-wires `{now[key].name}`: {_sides(was[key], after_now[key])}")
        lines += _node(before[key], now[key])
    lines += _options([(before[key], now[key]) for key in sorted(now.keys() & before.keys())])
    lines += _lists("gate", gates(old), gates(new))
    lines += _lists("hook", [*old.hooks], [*new.hooks])
    lines += _lists("freshness check", *([s.name for s in f.freshness] for f in (old, new)))
    for name in ("test_gating", "max_wait", "task_per", "docs", "manifest"):
        if getattr(old, name) != getattr(new, name):
            lines.append(f"{name}: {getattr(old, name)} → {getattr(new, name)}")
    if old.deadline != new.deadline:
        told = (duration(f.deadline) if f.deadline else "none" for f in (old, new))
        lines.append(f"deadline: {' → '.join(told)}")
    return lines


def markdown(old: Mapping[str, EdgeFile], new: Mapping[str, EdgeFile], since: str) -> str:
    """A comment for a pull request.

    Args:
        old: The edge files before, by schedule.
        new: The edge files after, by schedule.
        since: What "before" is called: a git revision.
    """
    found = {name: changes(old.get(name), new.get(name)) for name in sorted({*old, *new})}
    lines = [f"### Schedules since {since}"]
    for name, told in found.items():
        if told:
            lines += ["", f"**{name}**", "", *(f"- {line}" for line in told)]
    if not any(found.values()):
        lines += ["", "No schedule changes."]
    return "\n".join(lines) + "\n"


def _node(old: Node, new: Node) -> list[str]:
    lines = []
    for name in ("name", "kind", "select", "tags"):
        was, now = getattr(old, name), getattr(new, name)
        if was != now:
            lines.append(f"`{old.name}`: {name} {_plain(was)} → {_plain(now)}")
    lines += _lists(f"test of `{new.name}`", _tests(old), _tests(new))
    if {t.id for t in old.tests} == {t.id for t in new.tests} and old.tests != new.tests:
        lines.append(f"`{new.name}`: its tests are selected differently")
    if old.test_parents != new.test_parents:
        lines.append(f"`{new.name}`: its tests wait for other nodes")
    return lines


def _options(pairs: list[tuple[Node, Node]]) -> list[str]:
    """A line for each change, however many nodes it is of."""
    found: dict[tuple[str, str], list[str]] = {}
    for old, new in pairs:
        if options(old) != options(new):
            found.setdefault((options(old), options(new)), []).append(new.name)
    return [
        f"options {was or 'none'} → {now or 'none'}: "
        + (f"all {len(pairs)} nodes" if len(names) == len(pairs) > 1 else code(names))
        for (was, now), names in found.items()
    ]


def _tests(node: Node) -> list[str]:
    return sorted(test.name for test in node.tests)


def _lists(what: str, old: list[str], new: list[str]) -> list[str]:
    return _told(old, new, f"adds {what}:", f"removes {what}:")


def _sides(old: list[str], new: list[str]) -> str:
    return ", ".join(_told(old, new, "after", "no longer after"))


def _told(old: list[str], new: list[str], came: str, went: str) -> list[str]:
    told = [f"{came} `{name}`" for name in new if name not in old]
    return told + [f"{went} `{name}`" for name in old if name not in new]


def _after(parents: list[str]) -> str:
    return f" after {code(parents)}" if parents else ""


def _plain(value: object) -> str:
    return ", ".join(value) or "none" if isinstance(value, tuple) else f"`{value}`"
