"""`make image-sizes`: do the Dockerfile's steps in a folder of this machine, and measure each.

No Docker engine is needed. What comes with the base image, and what its own scripts install, is not
measured. The sizes are those of files as they lie on a disk; what a deploy sends is compressed.
"""

from __future__ import annotations

import fnmatch
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from include.errors import LocalError, status_of
from include.settings import ROOT, child_environment

RUN_SECONDS = 600
CHANGED = "dbt/dbt_project.yml"
console = Console(highlight=False, soft_wrap=True)


@dataclass
class Image:
    """What an image would hold, in a folder.

    Attributes:
        folder: In place of the image's working directory.
        user: Who the steps are done as.
        environment: What ``ENV`` has set.
    """

    folder: Path
    user: str = "root"
    environment: dict[str, str] = field(default_factory=dict)

    def do(self, step: str) -> bool:
        """Do one step; returns whether it was one that can be done here.

        Raises:
            LocalError: A command failed.
        """
        kind, _, rest = step.partition(" ")
        if kind == "USER":
            self.user = rest
        elif kind == "ENV":
            self.environment |= dict(word.split("=", 1) for word in shlex.split(rest))
        elif kind == "COPY":
            *sources, target = (w for w in shlex.split(rest) if not w.startswith("--"))
            self._copy(sources, target)
        elif kind == "RUN" and self.user != "root":
            self._run(rest)
        return kind == "COPY" or (kind == "RUN" and self.user != "root")

    def _copy(self, sources: Sequence[str], target: str) -> None:
        for name in (name for source in sources for name in copied(source)):
            place = self.folder / (name if sources == ["."] else f"{target}/{Path(name).name}")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place)

    def _run(self, command: str) -> None:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=child_environment({**self.environment, "PYTHONPATH": "", "SLUICE_VENVS": ""}),
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise LocalError(f"Dockerfile: {command}: {' '.join(last) or 'it said nothing'}")


def steps(dockerfile: Path) -> list[str]:
    """The instructions of a Dockerfile, one a line, in order."""
    lines = dockerfile.read_text().replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def copied(source: str) -> list[str]:
    """The files that ``COPY`` takes, as paths in the project, sorted: no ignored ones.

    Args:
        source: A path or pattern, or ``.`` for the whole project.
    """
    return [name for name in context() if source == "." or fnmatch.fnmatch(name, source)]


def context() -> list[str]:
    """The files of the project that Docker would be sent, sorted."""
    ignored = (ROOT / ".dockerignore").read_text().split()
    return sorted(_files(ROOT, ignored))


def _files(folder: Path, ignored: Sequence[str]) -> Iterator[str]:
    for entry in os.scandir(folder):
        name = Path(entry.path).relative_to(ROOT).as_posix()
        if any(_matches(name, pattern) for pattern in ignored):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path), ignored)
        else:
            yield name


def _matches(name: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatch(Path(name).name, pattern.removeprefix("**/"))
    return name.count("/") == pattern.count("/") and fnmatch.fnmatch(name, pattern)


def bytes_in(folder: Path) -> int:
    """What the files of a folder have together; one with several names counts once."""
    files = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sum({found.st_ino: found.st_size for found in map(os.lstat, files)}.values())


def measure(folder: Path) -> None:
    """Do all steps, and once more those that a changed model would have done anew."""
    image, before = Image(folder), 0
    listed = steps(ROOT / "Dockerfile")
    for step in listed:
        began = time.monotonic()
        if image.do(step):
            seconds, size = time.monotonic() - began, bytes_in(folder)
            console.print(f"{(size - before) / 1e6:8.1f} MB {seconds:6.1f} s  {step}")
            before = size
        else:
            console.print(f"{'-':>11} {'-':>8}  {step}")
    console.print(f"{before / 1e6:8.1f} MB           all of these")
    began = time.monotonic()
    for step in anew(listed):
        image.do(step)
    seconds = time.monotonic() - began
    console.print(f"a change in {CHANGED} does anew, in {seconds:.1f} s:")
    for step in anew(listed):
        console.print(f"  {step}")


def anew(listed: Sequence[str]) -> Sequence[str]:
    """The steps from the first that copies the changed file."""
    for number, step in enumerate(listed):
        words = shlex.split(step)
        if words[0] == "COPY" and any(CHANGED in copied(word) for word in words[1:-1]):
            return listed[number:]
    raise LocalError(f"Dockerfile: no COPY takes {CHANGED}")


def main() -> int:
    """Measure in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="sluice-image-") as folder:
        return status_of(lambda: measure(Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
