"""`scripts/install.sh` in a clean folder: what it makes, and the one line when it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from include.settings import ROOT, settings


@pytest.fixture
def install(tmp_path):
    def run(*names, **variables):
        environment = os.environ | {"SLUICE_VENVS": str(tmp_path / "venvs")} | variables
        return subprocess.run(
            [shutil.which("bash"), "scripts/install.sh", *names],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


def fails_with(done):
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    return line


def test_an_environment_is_made_once_and_anew_after_an_interruption(install, tmp_path):
    done = install("singer")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("install: singer in ")
    python = tmp_path / "venvs" / "singer" / "bin" / "python"
    subprocess.run([python, "-c", "import singer"], check=True)
    again = install("singer")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    (tmp_path / "venvs" / "singer" / ".complete").unlink()  # what an interrupted run leaves
    next((tmp_path / "venvs" / "singer").rglob("singer/__init__.py")).unlink()
    assert install("singer").stderr.startswith("install: singer in ")
    subprocess.run([python, "-c", "import singer"], check=True)


def test_an_unknown_environment_is_named_with_those_that_are_known(install):
    line = fails_with(install("airflw"))
    assert line.startswith("install: ")
    assert "requirements/airflw.txt: no such file; known environments: airflow" in line


def test_no_python_of_the_right_version(install, tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "dirname", "mkdir", "env"):
        (folder / name).symlink_to(shutil.which(name))
    old = folder / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    line = fails_with(install("singer", PATH=str(folder)))
    assert line == (
        "install: no Python 3.11, 3.12 or 3.13 with venv found; install one, or name it: "
        "SLUICE_PYTHON=/path/to/python3.12"
    )


def test_no_network(install, tmp_path):
    uv = shutil.which("uv") or settings().venvs / "uv" / "bin" / "uv"
    cache = {
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple",
    }
    path = f"{os.path.dirname(uv)}:{os.environ['PATH']}"  # noqa: PTH120
    line = fails_with(install("singer", PATH=path, **cache))
    assert line.startswith(
        "install: singer: the package index cannot be reached; check the network"
    )


def test_no_room_on_the_disk(install, tmp_path):
    full = tmp_path / "venvs"
    full.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", full], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small disk can be mounted by root only")
    try:
        line = fails_with(install("singer"))
        assert line == (
            f"install: the disk is full: {full} has 1 MB left; free about 2 GB, "
            "then run the same command again"
        )
    finally:
        subprocess.run(["umount", "-l", full], check=True)
