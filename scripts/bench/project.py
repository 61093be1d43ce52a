"""A dbt project of any size, layered as real ones are, for measurements."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from include.settings import ROOT

SCHEDULES = ("standard_schedule", "hourly_schedule", "late_schedule")
LAYERS = (("staging", 0.4), ("intermediate", 0.25), ("marts", 0.35))
IN_A_FILE = 50
KINDS = {"staging": "view", "intermediate": "view", "marts": "table"}
WARM_UP = "warm_up"


def generate(folder: Path, models: int, *, one_schedule: bool = False) -> None:
    """Write a project: three schedules, two tests a model, a tenth of the models ephemeral.

    A model reads one to three models of earlier layers, or of its own; it is of their latest
    schedule or a later one, so that no two schedules wait for each other. Each holds one row, and
    its tests pass.

    Args:
        folder: Made anew.
        models: How many.
        one_schedule: All models are of the first schedule, views or tables, every other one with
            one test instead of two; the first has the tag :data:`WARM_UP`.
    """
    pick = random.Random(models)  # noqa: S311  (the same project each time)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "dbt" / "profiles.yml", folder)
    (folder / "dbt_project.yml").write_text("name: bench\nprofile: sluice\n")
    schedules = SCHEDULES[:1] if one_schedule else SCHEDULES
    selectors = (f"  - name: {name}\n    definition: tag:{name}\n" for name in schedules)
    (folder / "selectors.yml").write_text("selectors:\n" + "".join(selectors))
    schedule_of: dict[str, int] = {}
    for layer, share in LAYERS:
        made: list[str] = []
        for number in range(round(models * share)):
            known = list(schedule_of)
            parents = pick.sample(known, min(len(known), pick.randint(1, 3)))
            if layer == "staging":
                parents = []
            name = f"{layer}_{number:05d}"
            least = max((schedule_of[p] for p in parents), default=0)
            leap = layer == "marts" and pick.random() < 0.4
            schedule_of[name] = min(least + leap, len(SCHEDULES) - 1)
            ephemeral = layer == "intermediate" and pick.random() < 0.4
            kind, tags = "ephemeral" if ephemeral else "table", [SCHEDULES[schedule_of[name]]]
            if one_schedule:
                kind, tags = KINDS[layer], [SCHEDULES[0], *([] if known else [WARM_UP])]
            _model(folder / "models" / layer, name, kind, tags, parents)
            made.append(name)
        for start in range(0, len(made), IN_A_FILE):
            names = made[start : start + IN_A_FILE]
            _properties(folder / "models" / layer, names, start, one_schedule=one_schedule)


def _model(folder: Path, name: str, kind: str, tags: list[str], parents: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    head = f"{{{{ config(materialized='{kind}', tags={tags}) }}}}\n"
    reads = (f"select id from {{{{ ref('{parent}') }}}}" for parent in parents)  # noqa: S608
    (folder / f"{name}.sql").write_text(head + ("\nunion\n".join(reads) or "select 1 as id"))


def _properties(folder: Path, names: list[str], start: int, *, one_schedule: bool) -> None:
    text = "models:\n"
    for number, name in enumerate(names):
        tests = "unique" if one_schedule and number % 2 else "not_null, unique"
        text += f"  - name: {name}\n    columns: [{{name: id, data_tests: [{tests}]}}]\n"
    (folder / f"properties_{start:05d}.yml").write_text(text)
