"""What `astro dev parse` and `astro deploy` run: each file in dags/ imports.

As in the CLI's own file of this name, nothing is asked of the world meanwhile: connections are
empty, variables and what the environment lacks are mocked.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk import BaseHook, Connection, Variable

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "dags").glob("*.py"))
EXCEPTIONS = (Path(__file__).parent / "dag_integrity_exceptions.txt").read_text().splitlines()


def mocked_getenv(key: str, default: str | None = None) -> str:
    return os.environ.get(key) or default or f"MOCKED_{key.upper()}_VALUE"


@pytest.mark.parametrize("file", [name for name in FILES if name not in EXCEPTIONS])
def test_file_imports(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getenv", mocked_getenv)
    monkeypatch.setattr(BaseHook, "get_connection", lambda key, *_: Connection(conn_id=key))
    monkeypatch.setattr(Variable, "get", lambda key, *_, **__: f"MOCKED_{key.upper()}_VALUE")
    bag = DagBag(ROOT / file)
    assert not bag.import_errors, "\n".join(bag.import_errors.values())
