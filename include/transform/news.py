"""Leave a task's nodes as they are where nothing that they read has news, and remember what was.

A Watch is for the task that builds nodes, TestsOf for the one that tests what that has built.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from airflow.sdk import Asset
from airflow.sdk.definitions.context import Context

from include.settings import settings
from include.transform.unchanged import NEWS, Built, Seen, version, why_build

log = logging.getLogger(__name__)
ASKED = ("only", "full_refresh", "vars", "empty")  # by whoever triggers a run
BUILT = "built"  # the key in the asset's state store
UNCHANGED = "unchanged"  # the key in the XCom of what was left as it is


@dataclass(frozen=True)
class Watch:
    """What a task looks at that may leave its nodes as they are.

    Attributes:
        memory: The asset that remembers the last build.
        reads: What is read, by dbt's unique_id; None where nothing tells whether it has news.
        is_tested: Whether the task tests what it builds, or there is nothing to test.
    """

    memory: Asset
    reads: Mapping[str, Asset | None]
    is_tested: bool

    @property
    def assets(self) -> list[Asset]:
        """What Airflow has to let the task see."""
        return [self.memory, *(asset for asset in self.reads.values() if asset)]

    def look(self, context: Context, environment: Mapping[str, str]) -> tuple[str, Seen | None]:
        """Look for news before anything is built.

        Returns:
            What children know already, where all may be left as it is; else an empty text, and what
            is built of.
        """
        news = {key: _last_news(context, asset) for key, asset in self.reads.items()}
        seen = Seen(news, version(settings().dbt_project, environment))
        memory = _Memory(context, self.memory)
        built = memory.built
        why = self._why_build(context, built, seen)
        if built and not why:
            log.info("left as it is: no news of %s", ", ".join(seen.news) or "the project")
            return built.news, seen
        log.info("to be built: %s", why)
        memory.built = None  # should it fail half-way, nothing is known of a build
        return "", seen

    def remember(self, context: Context, seen: Seen | None) -> None:
        """After it is built; where it was built as no other run will, nothing is known of it."""
        asked = (key for key in ASKED if key != "full_refresh")
        is_trial = any(context["params"].get(key) for key in asked)
        if seen:
            built = None if is_trial else Built(seen, own_news(context), self.is_tested)
            _Memory(context, self.memory).built = built

    def _why_build(self, context: Context, built: Built | None, seen: Seen) -> str:
        if context["ti"].try_number > 1:
            return "it is not the run's first try"
        if asked := [key for key in ASKED if context["params"].get(key)]:
            return f"{', '.join(asked)} asked for"
        return why_build(built, seen)


@dataclass(frozen=True)
class TestsOf:
    """For the task that tests nodes which another may leave as they are.

    Attributes:
        memory: The asset that remembers the last build.
        built_by: The id of the task that builds.
    """

    memory: Asset
    built_by: str

    @property
    def assets(self) -> list[Asset]:
        """What Airflow has to let the task see, beside its outlets."""
        return [self.memory]

    def look(self, context: Context, _: Mapping[str, str]) -> tuple[str, None]:
        """As for a Watch; it is this run's first try of the tests that follows the build's."""
        told: Any = context["ti"].xcom_pull(task_ids=self.built_by)
        news = str((told or {}).get(UNCHANGED, "")) if context["ti"].try_number == 1 else ""
        memory = _Memory(context, self.memory)
        if news:
            log.info("left as it is: what it tests was not built again")
        elif built := memory.built:
            memory.built = replace(built, is_tested=False)  # until they have passed
        return news, None

    def remember(self, context: Context, _: Seen | None) -> None:
        """After the tests have passed."""
        memory = _Memory(context, self.memory)
        if built := memory.built:
            memory.built = replace(built, news=own_news(context), is_tested=True)


class _Memory:
    """What is remembered of the last build, in whichever DAG: the table is the same."""

    def __init__(self, context: Context, asset: Asset) -> None:
        self._store: Any = context["asset_state_store"][asset]

    @property
    def built(self) -> Built | None:
        return Built.from_dict(self._store.get(BUILT))

    @built.setter
    def built(self, built: Built | None) -> None:
        self._store.set(BUILT, built.to_dict() if built else {})


def own_news(context: Context) -> str:
    """What this try of a task tells of what it has built."""
    instance: Any = context["ti"]
    return f"{instance.dag_id}/{context['run_id']}/{instance.try_number}"


def _last_news(context: Context, asset: Asset | None) -> str | None:
    events = context["inlet_events"][asset].ascending(False).limit(1) if asset else ()
    newest = next(iter(events), None)
    extra: Any = newest.extra if newest else {}
    news = extra.get(NEWS)
    return str(news) if news else None
