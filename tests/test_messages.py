"""Every message of an error is on one of the pages for whoever sees it."""

from __future__ import annotations

import ast

import pytest

from include import errors
from include.settings import ROOT

PAGES = ("when-a-load-fails.md", "when-it-fails.md", "when-a-command-fails.md")
TEXT = " ".join(" ".join((ROOT / "docs" / page).read_text().split()) for page in PAGES)
FILES = sorted([*(ROOT / "include").rglob("*.py"), *(ROOT / "scripts").glob("*.py")])
TREE = {name for name, one in vars(errors).items() if isinstance(one, type)}
TELLING = 8  # shorter pieces of text stand between values and say nothing; so do single words


def is_error(call):
    """Whether a call makes an error of ours: by its class, or by a file's method for it."""
    name = getattr(call.func, "id", None) or getattr(call.func, "attr", "")
    return name in TREE or name == "fail"


def messages():
    """The longest piece of text in each error that is made, with its place."""
    found = []
    for path in FILES:
        calls = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call))
        for call in filter(is_error, calls):
            texts = [
                part.value.strip(" :;,.'{")
                for argument in call.args
                for part in ast.walk(argument)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
            longest = max(texts, key=len, default="")
            if len(longest) >= TELLING and " " in longest:
                place = f"{path.relative_to(ROOT)}:{call.lineno}"
                found.append(pytest.param(longest.replace("`", ""), id=place))
    return found


@pytest.mark.parametrize("text", messages())
def test_a_message_is_explained(text):
    assert text in TEXT.replace("`", "")
