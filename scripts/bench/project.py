"""A dbt project of any size, layered as real ones are, for measurements."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from include.settings import ROOT

SCHEDULES = ("standard_schedule", "hourly_schedule", "late_schedule")
LAYERS = (("staging", 0.4), ("intermediate", 0.25), ("marts", 0.35))
IN_A_FILE = 50


def generate(folder: Path, models: int) -> None:
    """Write a project: three schedules, two tests a model, a tenth of the models ephemeral.

    A model reads one to three models of earlier layers, or of its own; it is of their latest
    schedule or a later one, so that no two schedules wait for each other.

    Args:
        folder: Made anew.
        models: How many.
    """
    pick = random.Random(models)  # noqa: S311  (the same project each time)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "dbt" / "profiles.yml", folder)
    (folder / "dbt_project.yml").write_text("name: bench\nprofile: sluice\n")
    selectors = (f"  - name: {name}\n    definition: tag:{name}\n" for name in SCHEDULES)
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
            _model(folder / "models" / layer, name, schedule_of[name], parents, ephemeral=ephemeral)
            made.append(name)
        for start in range(0, len(made), IN_A_FILE):
            _properties(folder / "models" / layer, made[start : start + IN_A_FILE], start)


def _model(folder: Path, name: str, schedule: int, parents: list[str], *, ephemeral: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kind = "ephemeral" if ephemeral else "table"
    head = f"{{{{ config(materialized='{kind}', tags=['{SCHEDULES[schedule]}']) }}}}\n"
    reads = (f"select id from {{{{ ref('{parent}') }}}}" for parent in parents)  # noqa: S608
    (folder / f"{name}.sql").write_text(head + ("\nunion all\n".join(reads) or "select 1 as id"))


def _properties(folder: Path, names: list[str], start: int) -> None:
    columns = "    columns: [{name: id, data_tests: [not_null, unique]}]\n"
    text = "models:\n" + "".join(f"  - name: {name}\n{columns}" for name in names)
    (folder / f"properties_{start:05d}.yml").write_text(text)
