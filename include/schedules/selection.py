"""dbt's own selector code on a manifest that is in memory: one graph, any number of selections."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from include.errors import DbtProjectError, one_line


class Selection:
    """Selects nodes of a manifest, as ``dbt ls`` would.

    Args:
        manifest: dbt's Manifest.
        root: Where dbt looks for the files of the ``path:`` method.

    Raises:
        DbtProjectError: The graph has a cycle, or a node reads what is not there.
    """

    def __init__(self, manifest: Any, root: Path) -> None:
        from dbt.compilation import Linker
        from dbt.graph import Graph, NodeSelector

        linker = Linker()
        try:
            linker.link_graph(manifest)
        except RuntimeError as error:
            raise DbtProjectError(f"the dbt project's graph: {one_line(error)}") from None
        self._root = root
        self._selector = NodeSelector(Graph(linker.graph), manifest)
        self.matching = cache(self._matching)

    def of(self, spec: Any) -> frozenset[str]:
        """The ids that a parsed selector finds, tests as its `indirect_selection` has it."""
        from dbt_common.events.contextvars import task_contextvars

        with task_contextvars(project_root=str(self._root)):
            return frozenset(str(key) for key in self._selector.get_selected(spec))

    def _matching(self, select: str) -> frozenset[str]:
        """The ids that ``--select <select> --indirect-selection empty`` finds."""
        from dbt.graph.selector_spec import SelectionCriteria as Criteria
        from dbt.graph.selector_spec import SelectionIntersection

        parts = [Criteria.dict_from_single_spec(part) for part in select.split(",")]
        empty = {"indirect_selection": "empty"}
        specs = [Criteria.selection_criteria_from_dict(part, part | empty) for part in parts]
        return self.of(SelectionIntersection(components=specs))
