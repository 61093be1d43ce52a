"""Each test that the page on security names is there."""

from __future__ import annotations

import re

import pytest

from include.settings import ROOT

NAMED = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", (ROOT / "SECURITY.md").read_text())


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_claim_has_its_test(file, name):
    assert f"def {name}(" in (ROOT / file).read_text()
