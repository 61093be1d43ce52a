"""The examples in docstrings hold."""

from __future__ import annotations

import doctest
import importlib

import pytest

from include.settings import ROOT

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "include").rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name):
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried
    assert not failed
