"""Write tests/fixtures/manifests/ anew: one dbt project, parsed by several versions of dbt.

    make corpus         each version is installed in a scratch folder

With them their edge files, tests/fixtures/every_kind_edges/, which all versions give alike.

What is left out: macros and docs, which no schedule depends on, and what differs from run to run.
`made_of` is a hash of the project, so that a test can tell when the manifests are stale.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

from include.errors import status_of
from include.process import output_of
from include.settings import ROOT
from include.transform.dbt_command import project_options

VERSIONS = ("1.8", "1.9", "1.10", "1.11")
PROJECT = ROOT / "tests" / "fixtures" / "every_kind"
MANIFESTS = ROOT / "tests" / "fixtures" / "manifests"
LEFT_OUT = ("macros", "docs", "parent_map", "child_map", "group_map")
OF_ONE_RUN = ("created_at", "root_path", "compiled_path", "build_path")
STEP_SECONDS = 600
METADATA = ("dbt_schema_version", "dbt_version", "project_name", "adapter_type")


def made_of(project: Path = PROJECT) -> str:
    """SHA-256 over names and contents of the project's files."""
    files = sorted(p for p in project.rglob("*") if p.is_file() and not p.name.startswith("."))
    told = [(str(p.relative_to(project)), sha256(p.read_bytes()).hexdigest()) for p in files]
    return sha256(json.dumps(told).encode()).hexdigest()


def trimmed(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest without what schedules do not depend on, and what differs from run to run."""
    kept = {key: _trim(value) for key, value in manifest.items() if key not in LEFT_OUT}
    kept |= {key: {} for key in LEFT_OUT}
    metadata = {key: manifest["metadata"][key] for key in METADATA}
    return kept | {"metadata": metadata | {"made_by": "make corpus", "made_of": made_of()}}


def _trim(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _trim(item) for key, item in value.items() if key not in OF_ONE_RUN}
    return [_trim(item) for item in value] if isinstance(value, list) else value


def _parsed(version: str, uv: Path, scratch: Path) -> dict[str, Any]:
    venv, target = scratch / "venv", scratch / "target"
    output_of([uv, "venv", "--quiet", venv], STEP_SECONDS)
    packages = [f"dbt-core~={version}.0", "dbt-postgres"]
    install = [uv, "pip", "install", "--quiet", "--python", venv / "bin" / "python"]
    output_of([*install, *packages], STEP_SECONDS)
    folders = [*project_options(PROJECT), "--target-path", target, "--log-path", scratch]
    line = [venv / "bin" / "dbt", "--quiet", "parse", "--no-partial-parse", *folders]
    line.append("--no-send-anonymous-usage-stats")
    output_of(line, STEP_SECONDS, {"EVERY_KIND_TARGET": "postgres"})
    content: dict[str, Any] = json.loads((target / "manifest.json").read_text())
    return content


def main() -> None:
    """Write a manifest for each version, and the edge files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uv", type=Path, required=True)
    uv = parser.parse_args().uv
    for version in VERSIONS:
        with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
            manifest = trimmed(_parsed(version, uv, Path(folder)))
        text = json.dumps(manifest, indent=1, sort_keys=True)
        (MANIFESTS / f"dbt_{version}.json").write_text(text + "\n")


if __name__ == "__main__":
    sys.exit(status_of(main))
