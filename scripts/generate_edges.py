"""Write each schedule's edges to ``dags/edges/``, for Airflow and for people.

    python -m scripts.generate_edges               write them, from the dbt project
    python -m scripts.generate_edges --check       fail where they are not up to date, and say why
    python -m scripts.generate_edges --diff main   what changed since a git revision, as Markdown
    python -m scripts.generate_edges --manifest target/manifest.json    without running dbt

Runs in dbt's environment.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from include.errors import EdgeFileError, LocalError, status_of
from include.schedules.diff import changes, markdown
from include.schedules.edge_file import EdgeFile, read_edge_file, to_bytes
from include.schedules.edges import edge_files
from include.schedules.manifest import read_manifest, read_project
from include.schedules.plan import drawing, plan
from include.schedules.project import Project
from include.schedules.schedule_file import read_schedules
from include.settings import ROOT, settings
from scripts.revision import git

NO_DAG = "no file in dags/ reads its edges; docs/make-it-yours.md has one to copy"
MADE = (".pickle", ".mmd", ".md")


def outputs(project: Project, files: list[EdgeFile]) -> dict[str, bytes]:
    """File name to content of all that is generated."""
    made = {f"{file.schedule}.pickle": to_bytes(file) for file in files}
    made |= {f"{file.schedule}.mmd": drawing(file).encode() for file in files}
    return made | {"plan.md": plan(files, project).encode()}


def write(made: Mapping[str, bytes], folder: Path) -> None:
    """Write what is generated, and remove what was generated for schedules that are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _found(folder) - made.keys():
        (folder / name).unlink()
    for name, content in made.items():
        (folder / name).write_bytes(content)


def stale(made: Mapping[str, bytes], files: list[EdgeFile], folder: Path) -> list[str]:
    """Why a folder is not up to date, a line for each file; empty where it is."""
    found = _found(folder)
    reasons = [f"{folder / name}: it belongs to no schedule" for name in found - made.keys()]
    reasons += [f"{folder / name}: it is missing" for name in made.keys() - found]
    now = {f"{file.schedule}.pickle": file for file in files}
    for name in found & made.keys():
        if (folder / name).read_bytes() != made[name]:
            why = _changed(folder / name, now[name]) if name in now else ""
            reasons.append(f"{folder / name}: {why or 'it differs from the dbt project'}")
    return sorted(reasons)


def without_dag(files: list[EdgeFile], folder: Path) -> list[str]:
    """The schedules whose edges no DAG file names, where the folder is one of a DAG folder."""
    if folder.parent.name != "dags":
        return []
    texts = [path.read_text() for path in folder.parent.rglob("*.py")]
    return [f.schedule for f in files if not any(f"{f.schedule}.pickle" in t for t in texts)]


def _changed(path: Path, now: EdgeFile) -> str:
    try:
        told = "; ".join(changes(read_edge_file(path), now))
        return told and f"the dbt project {told}"
    except EdgeFileError as error:
        return error.why


def _found(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*") if path.suffix in MADE}


def _files_of(revision: str, folder: Path) -> dict[str, EdgeFile]:
    """The edge files that a git revision holds, by schedule."""
    found: dict[str, EdgeFile] = {}
    with tempfile.TemporaryDirectory(prefix="sluice-") as scratch:
        for name in git(folder, "ls-tree", "--name-only", revision, "./").decode().split():
            if name.endswith(".pickle"):
                copy = Path(scratch) / name
                copy.write_bytes(git(folder, "show", f"{revision}:./{name}"))
                try:
                    found[copy.stem] = read_edge_file(copy)
                except EdgeFileError as error:
                    raise LocalError(f"{name} at {revision}: {error.why}") from None
    return found


def main() -> None:
    """Write, check or compare.

    Raises:
        SluiceError: The project, or what is told of its schedules, cannot be used.
        SystemExit: With --check, where something is not up to date.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project-dir", type=Path, default=settings().dbt_project)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "dags" / "edges")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true")
    what.add_argument("--diff", metavar="REV")
    given = parser.parse_args()
    folder = given.project_dir.resolve()
    before = _files_of(given.diff, given.out) if given.diff else {}
    reading = read_manifest(given.manifest, folder) if given.manifest else read_project(folder)
    with reading as project:
        schedules = read_schedules(folder / "schedules.yml", project.schedules)
        files = edge_files(project, schedules)
        made = outputs(project, files)
    if given.diff:
        now = {file.schedule: file for file in files}
        sys.stdout.write(markdown(before, now, given.diff))
    elif given.check:
        if reasons := stale(made, files, given.out):
            sys.exit("\n".join(f"{reason}; write it anew with make edges" for reason in reasons))
    else:
        write(made, given.out)
        for schedule in without_dag(files, given.out):
            sys.stderr.write(f"{schedule}: {NO_DAG}\n")


if __name__ == "__main__":
    sys.exit(status_of(main))
