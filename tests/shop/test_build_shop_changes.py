"""A branch of the sample project is tried where there is no account, and nothing is left of it."""

from __future__ import annotations

import signal
import subprocess

import psutil
import pytest
from conftest import wait_until
from machine import Machine, copy_of_the_repository

from include.settings import settings

SECONDS = 500
COMMIT = ["-c", "user.name=a", "-c", "user.email=a", "commit", "--quiet", "--message", "one"]


class Branch(Machine):
    """A clone with one commit, whose environments are this repository's."""

    def __init__(self, folder):
        super().__init__(folder, folder / "clone")
        copy_of_the_repository(self.root, "docs", "tests")
        for line in (["init", "--quiet"], ["add", "."], COMMIT):
            subprocess.run(["git", *line], cwd=self.root, check=True)
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.environment["TMPDIR"] = str(self.temporary)

    def start(self):
        python = settings().program("dbt", "python")
        return subprocess.Popen(
            [python, "-m", "scripts.build_changed", "--since", "HEAD"],
            env=self.environment,
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def left(self):
        """Temporary files, and processes that know of them."""
        known = [" ".join(line) for process in psutil.process_iter() if (line := line_of(process))]
        return [*self.temporary.iterdir(), *(line for line in known if str(self.temporary) in line)]


def line_of(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture
def branch(tmp_path):
    made = Branch(tmp_path)
    with (made.root / "dbt/models/shop/marts/hourly_traffic.sql").open("a") as file:
        file.write("-- changed\n")
    yield made
    assert made.left() == []


@pytest.mark.timeout(SECONDS)
def test_a_changed_model_is_built_with_its_tests_and_nothing_else(branch):
    said, told = branch.start().communicate(timeout=SECONDS)
    assert [line.split(" | ")[:3] for line in said.splitlines()[4:]] == [
        ["| hourly_traffic", "model", "success"],
        ["| not_null_hourly_traffic_started_hour", "test", "pass"],
        ["| unique_hourly_traffic_started_hour", "test", "pass"],
    ]
    assert told.splitlines() == [
        "nodes to build and test in a local Snowflake: 3",
        "raw tables loaded: 1, rows: 800",
        "nodes that it reads built as in HEAD: 2",
    ]


@pytest.mark.timeout(SECONDS)
def test_one_that_is_told_to_end_leaves_nothing(branch):
    process = branch.start()
    wait_until(lambda: list(branch.temporary.glob("*/snowflake/*.db")), SECONDS)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
