"""Airflow operators around dbt: for nodes, hooks, sources, and what a run leaves behind."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from airflow.sdk import BaseHook, BaseOperator
from airflow.sdk.definitions.context import Context

from include.connections import SnowflakeConnection
from include.errors import SluiceError
from include.pods import pod_options
from include.retries import FailedWithTheRun, where_a_retry_helps
from include.schedules.asked import asked_for
from include.schedules.edge_file import Freshness
from include.settings import settings
from include.transform.artifacts import (
    CATALOG,
    DOCS,
    MANIFEST,
    RUN_RESULTS,
    SOURCES,
    Artifacts,
)
from include.transform.dbt_command import (
    DbtCommand,
    failing_rows,
    generate_docs,
    read_manifest,
    run_dbt,
    run_hooks,
    source_freshness,
)
from include.transform.freshness import merged_freshness, read_freshness
from include.transform.masked import masked_columns
from include.transform.news import UNCHANGED, TestsOf, Watch, own_news
from include.transform.results import BAD, DbtResult, NodeResult, merged
from include.transform.shown_rows import lines_of
from include.transform.unchanged import NEWS

START, END = "on-run-start", "on-run-end"
UPSTREAM = "sluice_upstream"


class DbtTask(BaseOperator):
    """What tasks around dbt share.

    Args:
        connection: The Airflow connection of the warehouse.
        kind: Which pod it gets where Kubernetes runs it.
    """

    def __init__(self, *, connection: str, kind: str = "dbt_run", **options: Any) -> None:
        super().__init__(**pod_options(kind), **options)
        self._connection = connection

    def _warehouse(self) -> SnowflakeConnection:
        connection = BaseHook.get_connection(self._connection)
        return SnowflakeConnection.from_airflow(connection, "dbt")

    def _environment(self, context: Context) -> dict[str, str]:
        return self._warehouse().tagged(context["ti"]).dbt_environment()

    def _artifacts(self, context: Context) -> Artifacts:
        return Artifacts(settings().artifacts, self.dag_id, context["run_id"])

    def _again(self, result: DbtResult, context: Context) -> DbtCommand | None:
        """What does a command again for the nodes that did not do well, where one can by hand."""

    def _take(self, result: DbtResult, context: Context) -> dict[str, Any]:
        """Keep and tell what came of a command; returns what is for XCom.

        Raises:
            SluiceError: A node did not do well; its notes tell where, and how to try it by hand.
        """
        places = self._artifacts(context).keep(self.task_id, result)
        told = [_told(node, places) for node in result.nodes]
        for node in result.nodes:
            tell = self.log.warning if node.status == "warn" else self.log.info
            tell("%s%s", node, _at(node, places))
        value = {"nodes": len(told), "results": told}
        if result.bad:
            context["ti"].xcom_push("return_value", value)
            from include.transform.notes import noted  # what does well does not need it

            with noted(result, places, self._again(result, context)):
                result.raise_for_nodes()
        return value


@dataclass(frozen=True)
class Part:
    """What a task does for one node.

    Attributes:
        node: The node's name.
        select: What dbt must select, in dbt's own syntax.
        ids: dbt's unique_ids of all that this selects.
    """

    node: str
    select: tuple[str, ...]
    ids: tuple[str, ...]


class DbtOperator(DbtTask):
    """Run one dbt command on what one node selects, or several nodes in a line.

    Of several nodes, those that an earlier try of the same run has built and tested are not built
    again, as long as what they wait for has not run again either.

    Args:
        verb: ``run``, ``seed``, ``snapshot``, ``test`` or ``build``.
        parts: A part for each node, in their order.
        watch: For nodes that may be left as they are.
        connection: The Airflow connection of the warehouse.
    """

    def __init__(
        self,
        *,
        verb: str,
        parts: Sequence[Part],
        watch: Watch | TestsOf | None = None,
        **options: Any,
    ) -> None:
        kind = "dbt_test" if verb == "test" else "dbt_run"
        super().__init__(kind=kind, **options, inlets=watch.assets if watch else None)
        self.parts = tuple(parts)
        self._verb = verb
        self._watch = watch

    @property
    def ids(self) -> tuple[str, ...]:
        """Dbt's unique_ids of all that it runs."""
        return tuple(key for part in self.parts for key in part.ids)

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the number of nodes and each one's status, rows, seconds, query and failures."""
        params = context["params"]
        parts = self.parts
        if only := params.get("only"):
            asked = asked_for(self, only)
            if not (parts := tuple(part for part in parts if part.node in asked)):
                self.log.info("left as it is: only %s and its children were asked for", only)
                self.outlets = []
                return {"nodes": 0, "results": []}
        with where_a_retry_helps():
            if not (earlier := self._earlier(context, parts)):
                self._artifacts(context).forget(self.task_id)
            environment = self._environment(context)
            news, seen = self._watch.look(context, environment) if self._watch else ("", None)
            if news:
                self._tell_assets(context, self.parts, UNCHANGED, news)
                return {"nodes": 0, "results": [], UNCHANGED: news}
            select = (s for part in _after(earlier, parts) for s in part.select)
            result = run_dbt(self._command(context, select), environment)
            self._show_failures(result, environment)
            if len(parts) > 1:
                content = merged([*earlier, result.content], [])
                result = replace(result, content={**content, UPSTREAM: self._upstream(context)})
            value = self._take(result, context)
        if self._watch:
            self._watch.remember(context, seen)
        self._tell_assets(context, parts, "built", own_news(context))
        return value

    def _command(self, context: Context, select: Iterable[str]) -> DbtCommand:
        params = context["params"]
        return DbtCommand(
            verb=self._verb,
            select=tuple(select),
            full_refresh=bool(params.get("full_refresh")),
            empty=bool(params.get("empty")),
            variables=params.get("vars") or {},
        )

    def _again(self, result: DbtResult, context: Context) -> DbtCommand:
        selects = {k: s for p in self.parts for k, s in zip(p.ids, p.select, strict=True)}
        bad = (node.id for node in result.bad if node.status != "skipped")
        return self._command(context, (selects[key] for key in bad if key in selects))

    def get_openlineage_facets_on_complete(self, instance: Any) -> Any:
        """For Airflow's OpenLineage provider; see docs/lineage.md."""
        try:
            # Its libraries are not there without the provider.
            from include.transform.lineage import of_dbt
        except ModuleNotFoundError as missing:
            self.log.info("no lineage of this task: %s; see docs/lineage.md", missing)
            return None
        artifacts = Artifacts(settings().artifacts, self.dag_id, instance.run_id)
        kept = artifacts.kept([self.task_id])
        return of_dbt(kept.get(self.task_id, {"results": ()}), self._warehouse())

    def _earlier(self, context: Context, parts: Sequence[Part]) -> list[dict[str, Any]]:
        """What an earlier try of several nodes left, where it can be gone on with."""
        if len(parts) == 1:
            return []
        kept = self._artifacts(context).kept([self.task_id]).get(self.task_id)
        if not kept or kept.get(UPSTREAM) != self._upstream(context):
            return []
        left = _after([kept], parts)
        if len(left) in (0, len(parts)):
            return []
        self.log.info("an earlier try has built %s", [p.node for p in parts[: -len(left)]])
        return [kept]

    def _upstream(self, context: Context) -> dict[str, Any]:
        """What tells whether the tasks that this one waits for have run again: their seconds."""
        instance: Any = context["ti"]
        crumbs = instance.get_task_breadcrumbs(dag_id=self.dag_id, run_id=context["run_id"])
        known = {str(crumb["task_id"]): crumb["duration"] for crumb in crumbs}
        return {key: known.get(key) for key in sorted(self.upstream_task_ids)}

    def _show_failures(self, result: DbtResult, environment: Mapping[str, str]) -> None:
        for test in (node for node in result.nodes if node.failures and node.compiled):
            try:
                rows = failing_rows(test.compiled, environment, masked_columns(settings().sources))
            except SluiceError as error:  # what came of the test is still to be told
                self.log.warning("its rows cannot be shown: %s", error)
                continue
            for line in lines_of(test.id, test.failures or 0, rows):
                self.log.info("%s", line)

    def _tell_assets(
        self, context: Context, parts: Collection[Part], state: str, news: str
    ) -> None:
        """Send an event for each node of some parts: for each outlet that is left, Airflow does."""
        pairs = zip(self.outlets, self.parts, strict=False)
        self.outlets = [asset for asset, part in pairs if part in parts]
        for asset in self.outlets:
            context["outlet_events"][asset].extra = {"state": state, NEWS: news}


def _after(earlier: Sequence[Mapping[str, Any]], parts: Sequence[Part]) -> Sequence[Part]:
    """The parts from the first on that an earlier try has not done well."""
    entries = (entry for content in earlier for entry in content["results"])
    good = {entry["unique_id"] for entry in entries if entry["status"] not in BAD}
    done = next((n for n, part in enumerate(parts) if not good.issuperset(part.ids)), len(parts))
    return parts[done:]


class HooksOperator(DbtTask):
    """Run the project's hooks of one kind, once in a DAG run; on-run-end fails where the run does.

    Args:
        kind: ``on-run-start`` or ``on-run-end``.
        nodes: Task id to the ids of the nodes that it runs.
        connection: The Airflow connection of the warehouse.
    """

    def __init__(self, *, kind: str, nodes: Mapping[str, Sequence[str]], **options: Any) -> None:
        super().__init__(**options)
        self._kind = kind
        self._nodes = nodes

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the number of hooks and each one's status and seconds."""
        results, states, value = None, {}, {"nodes": 0, "results": []}
        with where_a_retry_helps():
            if self._kind == END:
                states = _states(context, self._nodes)
                results = _results(self._artifacts(context), states, self._nodes)
            if self._kind == START or results:
                variables = context["params"].get("vars") or {}
                self._artifacts(context).forget(self.task_id)
                came = run_hooks(self._kind, results, variables, self._environment(context))
                value = self._take(came, context)
            _raise_for_run(context, states)
        return value


class FreshnessOperator(DbtTask):
    """Have dbt look how old the newest row of a source is.

    Args:
        source: The source, and what dbt must select to look at just this one.
        connection: The Airflow connection of the warehouse.
    """

    def __init__(self, *, source: Freshness, **options: Any) -> None:
        super().__init__(**options)
        self._source = source

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the source's status, and when its newest row was loaded.

        A source that is older than it may be fails at the first try: dbt's tests do, too.
        """
        with where_a_retry_helps():
            artifacts = self._artifacts(context)
            artifacts.forget(self.task_id)
            content = source_freshness(self._source.select, self._environment(context))
            artifacts.keep_content(self.task_id, content)
            (found,) = read_freshness(content)
            self.log.info("%s", found)
            context["ti"].xcom_push("return_value", asdict(found))
            found.raise_if_stale()
        return asdict(found)


class DocsOperator(DbtTask):
    """Leave dbt's documentation of the project: what the page `dbt docs` shows.

    Args:
        connection: The Airflow connection of the warehouse.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Return where the catalog and the documentation are."""
        with where_a_retry_helps():
            artifacts = self._artifacts(context)
            catalog, page = generate_docs(self._environment(context))
            places = {
                "catalog": artifacts.write(CATALOG, catalog),
                "docs": artifacts.write(DOCS, gzip.compress(page, mtime=0)),
            }
        self.log.info("documentation of %d bytes: %s", len(page), places["docs"])
        return places


class RunResultsOperator(DbtTask):
    """Leave one run_results.json of all that the DAG run did with dbt, and the manifest with it.

    Fails where the run does, so that Airflow tells that it failed, and whoever clears the failed
    tasks has the results written anew.

    Args:
        nodes: Task id to the ids of the nodes that it runs; none for hooks.
        freshness: The ids of the tasks that looked at sources.
        connection: The Airflow connection of the warehouse.
    """

    def __init__(
        self, *, nodes: Mapping[str, Sequence[str]], freshness: Sequence[str], **options: Any
    ) -> None:
        super().__init__(**options)
        self._nodes = nodes
        self._freshness = freshness

    def execute(self, context: Context) -> dict[str, Any]:
        """Return where both are, and how many nodes there are of each status."""
        states = _states(context, self._nodes)
        with where_a_retry_helps():
            artifacts = self._artifacts(context)
            results = _results(artifacts, states, self._nodes)
            if results is None:
                _raise_for_run(context, states)
                return {"nodes": {}}
            manifest = artifacts.write(MANIFEST, read_manifest(self._environment(context)))
            if sources := artifacts.kept(self._freshness):
                artifacts.write(SOURCES, json.dumps(merged_freshness(sources.values())).encode())
            place = artifacts.write(RUN_RESULTS, json.dumps(results, indent=1).encode())
            artifacts.prune(settings().artifacts_keep_runs)
        counts = Counter(str(entry["status"]) for entry in results["results"])
        told = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
        self.log.info("%s: %s", place, told)
        _raise_for_run(context, states)
        return {"run_results": place, "manifest": manifest, "nodes": dict(sorted(counts.items()))}


def _told(node: NodeResult, places: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": node.id,
        "status": node.status,
        "rows": node.rows,
        "seconds": node.seconds,
        "query_id": node.query_id,
        "failures": node.failures,
        "message": node.message,
        "compiled": places.get(node.id, ""),
    }


def _at(node: NodeResult, places: Mapping[str, str]) -> str:
    return f", SQL in {places[node.id]}" if node.id in places else ""


def _all_states(context: Context) -> dict[str, str]:
    """The state of each task of this DAG run."""
    run_id = context["run_id"]
    states = context["ti"].get_task_states(dag_id=context["dag"].dag_id, run_ids=[run_id])
    return dict(states[run_id])


def _states(context: Context, nodes: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The state of each of these tasks in this DAG run; without those that it does not have."""
    found = _all_states(context)
    return {task: found[task] for task in nodes if task in found}


def _results(
    artifacts: Artifacts, states: Mapping[str, str], nodes: Mapping[str, Sequence[str]]
) -> dict[str, Any] | None:
    """What these tasks did so far; None where no command of dbt was run."""
    ended = [task for task, state in states.items() if state in ("success", "failed")]
    kept = artifacts.kept(ended)
    if not kept:
        return None
    # What did well and has kept nothing was not asked for, or was left as it is.
    left = {task for task in ended if task not in kept and states[task] == "success"}
    expected = (key for task, keys in nodes.items() if task not in left for key in keys)
    return merged(kept.values(), expected)


def _failed(states: Mapping[str, str]) -> list[str]:
    return sorted(task for task, state in states.items() if state == "failed")


def _raise_for_run(context: Context, states: Mapping[str, str]) -> None:
    """Raise where a task failed, or was not started for that.

    Raises:
        FailedWithTheRun: It names them.
    """
    failed = _failed(states)
    waiting = sum(state == "upstream_failed" for state in states.values())
    if failed or waiting:
        failed = failed or _failed(_all_states(context))
        told = f"failed: {', '.join(failed)}" if failed else "what precedes dbt failed"
        raise FailedWithTheRun(
            f"{told}; not started: {waiting}; this task fails with them: mend and clear those"
        )
