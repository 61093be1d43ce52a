"""Print the seconds of making edge files out of a project that is parsed and selected, as JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from include.schedules.edges import edge_files
from include.schedules.manifest import read_manifest
from include.schedules.schedule_file import read_schedules

with read_manifest(Path(sys.argv[1]), Path(sys.argv[2])) as project:
    started = time.perf_counter()
    files = edge_files(project, read_schedules(Path("none.yml"), project.schedules))
    seconds = time.perf_counter() - started
sys.stdout.write(json.dumps({"seconds": seconds, "schedules": len(files)}) + "\n")
