"""Every message of extract and load is in the page that explains them."""

from __future__ import annotations

import ast

import pytest

from include.settings import ROOT

PAGE = " ".join((ROOT / "docs" / "when-a-load-fails.md").read_text().split())
FOLDER = ROOT / "include" / "extract_load"
TELLING = 8  # shorter pieces of text stand between values and say nothing


def messages():
    """The longest piece of text in each error that is raised, with its place."""
    found = []
    for path in sorted(FOLDER.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
                continue
            texts = [
                part.value.strip(" :;,.'{")
                for argument in node.exc.args
                for part in ast.walk(argument)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
            longest = max(texts, key=len, default="")
            if len(longest) >= TELLING:
                found.append(pytest.param(longest, id=f"{path.name}:{node.lineno}"))
    return found


@pytest.mark.parametrize("text", messages())
def test_a_message_is_explained(text):
    assert text in PAGE
