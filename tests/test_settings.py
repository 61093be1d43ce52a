"""What programs of other environments get of this process's variables."""

from __future__ import annotations

import os
import subprocess
import sys

from include import settings
from include.settings import child_environment, load_local_environment

AIRFLOWS = (
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW_CONN_WAREHOUSE",
    "_AIRFLOW_WWW_USER_PASSWORD",
    "SLUICE_SOURCE_URL",
    "SLUICE_AIRFLOW_TOKEN",
)


def test_programs_get_nothing_of_airflows_own(monkeypatch):
    for name in (*AIRFLOWS, "AWS_REGION"):
        monkeypatch.setenv(name, "canary")
    line = [sys.executable, "-c", "import os; print(*os.environ)"]
    done = subprocess.run(
        line, env=child_environment({"OURS": "a"}), capture_output=True, text=True, check=True
    )
    found = set(done.stdout.split())
    assert not found.intersection(AIRFLOWS)
    assert {"AWS_REGION", "OURS", "PYTHONPATH"} <= found


def test_the_last_line_of_a_key_counts_and_what_is_set_already_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    monkeypatch.setattr(os, "environ", {"SET": "1"})
    lines = ["AIRFLOW_CONN_A=wrong", "SET=2", "# SET=3", "AIRFLOW_CONN_A=postgresql://a:b=c@d/e"]
    (tmp_path / ".env").write_text("\n".join(lines))
    load_local_environment()
    assert os.environ == {"SET": "1", "AIRFLOW_CONN_A": "postgresql://a:b=c@d/e"}
