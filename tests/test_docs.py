"""Pages tell of what is there, and of all of it: links, paths, targets, keys and variables."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

from include.extract_load.source import SOURCE_KEYS, STREAM_KEYS
from include.schedules.edge_file import OPTIONS
from include.schedules.schedule_file import KEYS
from include.schedules.task_options import SKIP
from include.settings import ROOT
from scripts.remove_shop import FOLDERS_AND_FILES

PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob(".github/*.md")],
    key=lambda path: (path.name != "README.md", path),
)
TEXTS = {page: page.read_text() for page in PAGES}
ALL = "\n".join(TEXTS.values())
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z][a-z-]*):.*## ", MAKEFILE, re.MULTILINE))
# What a file reads of the environment: a variable of ours in quotes, or in a shell's $.
READ = {
    ROOT / "include/settings.py": r'"((?:SLUICE|SHOP|DBT)_[A-Z_]*[A-Z])"',
    ROOT / "Makefile": r"\$\((SLUICE_\w+)\)",
    **dict.fromkeys(ROOT.glob("scripts/*.sh"), r"\$\{?(SLUICE_\w+)"),
    ROOT / "docker-compose.override.yml": r"\$\{(SLUICE_\w+)",
}
MADE = {".local", ".venvs", ".env"}  # what commands make, and git does not hold


def of_pages(find):
    """A parameter for each thing found in a page's text."""
    return [
        pytest.param(page, found, id=f"{page.name}: {found}")
        for page, text in TEXTS.items()
        for found in sorted(find(text))
    ]


def links(text):
    """The targets of links to files and chapters of this repository."""
    found = re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", text))
    return {link for link in found if "://" not in link}


def code(text):
    """What stands as code: blocks, and pieces of a line."""
    return [*FENCED.findall(text), *re.findall(r"`([^`\n]+)`", FENCED.sub("", text))]


def commands(text):
    """The targets of the make commands of a page."""
    return set(chain.from_iterable(re.findall(r"\bmake ([a-z][\w-]*)", c) for c in code(text)))


def paths(text):
    """Paths of this repository among a page's pieces of code, without patterns and placeholders."""
    top = {name.partition("/")[0] for name in tracked()}
    words = chain.from_iterable(piece.split() for piece in re.findall(r"`([^`\n]+)`", text))
    return {
        word
        for word in words
        if "/" in word and word.split("/")[0] in top and not re.search(r"[<*{…]", word)
    }


@cache
def tracked():
    """What git holds, or would."""
    line = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()


def variables():
    """Those that are read."""
    return set(chain.from_iterable(re.findall(form, f.read_text()) for f, form in READ.items()))


def anchors(page):
    """What GitHub calls a page's chapters."""
    found = []
    for title in re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE):
        plain = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", title).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        again = sum(known == name for known in found)
        found.append(f"{name}-{again}" if again else name)
    return found


@pytest.mark.parametrize(("page", "link"), of_pages(links))
def test_a_link_leads_somewhere(page, link):
    path, _, anchor = link.partition("#")
    file = (page.parent / path).resolve() if path else page
    assert file.exists()
    assert not anchor or anchor in anchors(file)


@pytest.mark.parametrize(("page", "path"), of_pages(paths))
def test_a_path_is_there_or_the_page_makes_it(page, path):
    name = path.removeprefix("./").split(":")[0].rstrip("/")
    blocks = "\n".join(FENCED.findall(TEXTS[page]))
    made = name in blocks or re.search(rf"NAME={Path(name).stem}\b", blocks)
    of_the_shop = any(f"{name}/".startswith(f"{known}/") for known in FOLDERS_AND_FILES)
    assert made or (ROOT / name).exists() or name.split("/")[0] in MADE or of_the_shop


@pytest.mark.parametrize(("page", "target"), of_pages(commands))
def test_a_make_command_of_a_page_is_a_target(page, target):
    assert target in TARGETS, page


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_make_target_is_told_of(target):
    assert re.search(rf"\bmake {target}\b(?!-)", ALL)


@pytest.mark.parametrize(
    "told", [*(f"\n{key}:" for key in SOURCE_KEYS), *(f"| `{key}` |" for key in STREAM_KEYS)]
)
def test_a_key_of_source_files_is_explained(told):
    assert told in TEXTS[ROOT / "docs/add-a-source.md"]


@pytest.mark.parametrize("key", [*KEYS, *OPTIONS, SKIP])
def test_a_key_of_schedules_and_their_tasks_is_explained(key):
    assert re.search(rf"`{key}|^ *{key}:", TEXTS[ROOT / "docs/add-a-schedule.md"], re.MULTILINE)


@pytest.mark.parametrize("variable", sorted(variables()))
def test_a_variable_that_is_read_is_explained(variable):
    assert f"`{variable}" in ALL


def test_the_readme_is_read_in_a_minute():
    assert len(TEXTS[ROOT / "README.md"].splitlines()) <= 120
