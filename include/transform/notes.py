"""Notes for whoever mends a node: its line, its SQL, the command to try it by hand, what to clear.

They are Python's own notes of an exception, which `include/failed_task_log.py` logs before it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from include.errors import DbtTestFailure, SluiceError
from include.settings import settings
from include.transform.dbt_command import DbtCommand
from include.transform.error_line import error_line
from include.transform.results import DbtResult

MOST = 5
AFTER_TEST = (
    "then, with Downstream: clear this task if the test was wrong, its dbt_run task if the model"
    " was, its extract task if the source was"
)


@contextmanager
def noted(result: DbtResult, places: Mapping[str, str], again: DbtCommand | None) -> Iterator[None]:
    """Give an error that the block raises its notes.

    Args:
        result: What came of a command; notes are of the first five nodes that did not do well.
        places: Node id to where its compiled SQL is kept.
        again: The command for these nodes alone; None where there is none to try by hand.
    """
    try:
        yield
    except SluiceError as error:
        project = settings().dbt_project
        for node in result.bad[:MOST]:
            sent = result.sent.get(node.id, "")
            if node.compiled and (line := error_line(node.message, node.compiled, sent, project)):
                error.add_note(f"{project.name}/{line}")
            if node.id in places:
                error.add_note(f"SQL: {places[node.id]}")
        if again and again.select:
            error.add_note(f"by hand: {make_command(again)}")
        if result.verb == "test" and isinstance(error, DbtTestFailure):
            error.add_note(AFTER_TEST)
        raise


def make_command(command: DbtCommand) -> str:
    """What a person types to have dbt do it, beside `make up` or with an account's variables.

    >>> make_command(DbtCommand("run", ("fqn:shop.a",)))
    "make dbt ARGS='run --select fqn:shop.a'"
    """
    line = shlex.join(command.arguments()).replace("$", "$$")
    return f"make dbt ARGS={shlex.quote(line)}"
