"""Ask for known weaknesses of every locked package.

    make audit

pip-audit asks OSV (https://osv.dev). A weakness can be borne for a time: requirements/audit.yml.
Where OSV cannot be reached nothing is known, and that is a failure, too.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from include.config_file import ConfigFile
from include.errors import ConfigError, LocalError, status_of
from include.process import output_of
from include.settings import ROOT, settings

SERVICE = "https://api.osv.dev/v1/query"
SECONDS = 1800
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)")
KEYS = ("until", "reason")
MEND = "make lock ARGS=--upgrade-package=…, or bear it in requirements/audit.yml"
Pins = Mapping[tuple[str, str], list[str]]


@dataclass(frozen=True)
class Weakness:
    """A weakness that a package is known to have.

    Attributes:
        id: The service's name for it.
        aliases: Other names: of CVE, of GitHub.
        package: Name and version.
        files: The locked files that have it.
        mended: Versions that do not have it.
    """

    id: str
    aliases: tuple[str, ...]
    package: str
    files: tuple[str, ...]
    mended: tuple[str, ...]

    @property
    def names(self) -> set[str]:
        """All its names."""
        return {self.id, *self.aliases}

    def __str__(self) -> str:
        also = f" ({', '.join(self.aliases)})" if self.aliases else ""
        mended = f"mended in {', '.join(self.mended)}" if self.mended else "not mended anywhere"
        return f"{self.package}, in {', '.join(self.files)}: {self.id}{also}: {mended}"


def pins(folder: Path) -> dict[tuple[str, str], list[str]]:
    """Every (package, version) that is locked, for whatever Python, and the files that have it."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted(folder.glob("*.txt")):
        for match in filter(None, map(PIN.match, path.read_text().splitlines())):
            found.setdefault((match[1].lower(), match[2]), []).append(path.name)
    return dict(sorted(found.items()))


def borne(path: Path) -> dict[str, date]:
    """The weaknesses that are borne, and until when.

    Raises:
        ConfigError: The file is not of the form that is expected; the message names the line.
    """
    file = ConfigFile(path.name, path.read_text(), ConfigError)
    content = file.mapping(file.content, "")
    found = {}
    for name, told in content.items():
        values = file.mapping(told, name, KEYS)
        if type(values.get("until")) is not date:  # which a moment would be an instance of
            raise file.fail(f"{name}.until", f"expected a day, found {values.get('until')!r}")
        if not isinstance(values.get("reason"), str):
            raise file.fail(f"{name}.reason", f"expected a reason, found {values.get('reason')!r}")
        found[name] = values["until"]
    return found


def weaknesses(known: Pins, service: str) -> list[Weakness]:
    """What the service knows of packages.

    Raises:
        LocalError: It cannot be reached, or was not asked for one of them.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-") as name:
        folder = Path(name)
        answers = [_asked(file, service) for file in _files(known, folder)]
    entries = [entry for answer in answers for entry in answer["dependencies"]]
    if len(entries) != len(known) or any("skip_reason" in entry for entry in entries):
        raise LocalError(f"pip-audit has left out some of {len(known)} packages; nothing is known")
    return [
        Weakness(
            id=found["id"],
            aliases=tuple(sorted(found["aliases"])),
            package=f"{entry['name']} {entry['version']}",
            files=tuple(known[entry["name"].lower(), entry["version"]]),
            mended=tuple(found["fix_versions"]),
        )
        for entry in entries
        for found in entry["vulns"]
    ]


def _files(known: Pins, folder: Path) -> Iterable[Path]:
    """Requirements files, in none of which a package stands twice: pip-audit takes no other."""
    versions: dict[str, int] = {}
    lines: dict[int, list[str]] = {}
    for package, version in known:
        number = versions[package] = versions.get(package, -1) + 1
        lines.setdefault(number, []).append(f"{package}=={version}\n")
    for number, wanted in lines.items():
        path = folder / f"{number}.txt"
        path.write_text("".join(wanted))
        yield path


def _asked(file: Path, service: str) -> dict[str, Any]:
    answer = file.with_suffix(".json")
    line = [settings().program("audit", "pip-audit"), "--requirement", file, "--output", answer]
    line += ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    try:
        output_of([*line, "--vulnerability-service", "osv", "--osv-url", service], SECONDS)
    except LocalError as error:  # which it is where there are weaknesses, too
        if not answer.exists():
            last = str(error).rpartition("Error: ")[2]
            raise LocalError(f"{service} does not answer: nothing is known ({last})") from None
    content: dict[str, Any] = json.loads(answer.read_text())
    return content


def judged(found: Iterable[Weakness], exceptions: Mapping[str, date], today: date) -> list[str]:
    """What is wrong, a line each."""
    lines, used = [], set()
    for one in found:
        names = one.names & exceptions.keys()
        used |= names
        if over := sorted(name for name in names if exceptions[name] < today):
            lines.append(f"{one}; audit.yml bore {over[0]} until {exceptions[over[0]]}")
        elif not names:
            lines.append(f"{one}; {MEND}")
    unused = sorted(exceptions.keys() - used)
    return lines + [f"audit.yml: {name}: no locked package has it; take it out" for name in unused]


def main() -> None:
    """Ask, and judge.

    Raises:
        SluiceError: Nothing could be found out.
        SystemExit: Something is wrong.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requirements", type=Path, default=ROOT / "requirements")
    parser.add_argument("--service", default=SERVICE)
    parser.add_argument("--today", type=date.fromisoformat, default=date.today())
    given = parser.parse_args()
    exceptions, known = borne(given.requirements / "audit.yml"), pins(given.requirements)
    found = weaknesses(known, given.service)
    if wrong := judged(found, exceptions, given.today):
        sys.exit("\n".join(wrong))
    told = f"{len(found)} known weaknesses, all borne" if found else "no known weakness"
    sys.stdout.write(f"{len(known)} locked packages, {told}\n")


if __name__ == "__main__":
    sys.exit(status_of(main))
