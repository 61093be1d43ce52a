"""Scratch folders: private, locked while they are in use, and none left of who was killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from include.settings import ROOT, child_environment
from include.transform.scratch import scratch

HOLD = """
import sys, time
from pathlib import Path
from include.transform.scratch import scratch
with scratch(Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def runtime(tmp_path):
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    return folder


def test_what_a_killed_process_left_goes_with_the_next_and_what_is_in_use_stays(runtime):
    command = [sys.executable, "-c", HOLD, str(runtime)]
    pipes = {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=child_environment(), cwd=ROOT, **pipes) as holder:
        held = holder.stdout.readline().strip()
        with scratch(runtime) as folder:
            (folder / "target").mkdir()
            assert {str(path) for path in runtime.iterdir()} == {held, str(folder)}
        assert [str(path) for path in runtime.iterdir()] == [held]
        holder.kill()
        holder.wait()
    with scratch(runtime) as folder:
        assert list(runtime.iterdir()) == [folder]
    assert list(runtime.iterdir()) == []


def test_many_at_once_take_nothing_from_each_other(runtime):
    def use(number):
        with scratch(runtime) as folder:
            (folder / "file").write_text(str(number))
            return int((folder / "file").read_text())

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(use, range(400))) == list(range(400))
    assert list(runtime.iterdir()) == []


def test_where_others_can_read_the_folder_it_is_among_temporary_files(
    runtime, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    runtime.chmod(0o755)
    with scratch(runtime) as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o077 == 0
