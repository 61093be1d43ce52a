"""`make sbom` tells each locked package, in CycloneDX's form, and the same bytes every time."""

from __future__ import annotations

import json
import re
import subprocess

from include.settings import ROOT, child_environment, settings

VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read()) or "valid")
"""


def validated(text):
    python = settings().program("audit", "python")
    done = subprocess.run(
        [python, "-c", VALIDATE], input=text, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def test_a_bill_of_materials_has_what_is_locked(tmp_path):
    texts = []
    for name in ("first", "second"):
        subprocess.run(
            ["make", "--silent", "sbom", "NAMES=tap-postgres", f"OUT={tmp_path / name}"],
            cwd=ROOT,
            env=child_environment({"SLUICE_VENVS": str(settings().venvs)}),
            check=True,
            timeout=120,
        )
        texts.append((tmp_path / name / "tap-postgres.cdx.json").read_text())
    assert texts[0] == texts[1]
    bill = json.loads(texts[0])
    assert bill["metadata"]["component"]["name"] == "sluice"
    lock = (ROOT / "requirements/tap-postgres.txt").read_text()
    pins = re.findall(r"^([\w.-]+)==([^ ;\n]+)", lock, re.MULTILINE)
    assert {(part["name"], part["version"]) for part in bill["components"]} == set(pins)
    assert validated(texts[0]) == "valid"
    assert validated(texts[0].replace('"library"', '"bookcase"')) != "valid"
