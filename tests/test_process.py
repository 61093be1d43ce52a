from __future__ import annotations

import sys

import psutil
import pytest
from conftest import wait_until

from include.errors import LocalError
from include.process import output_of


def test_a_program_reads_its_input_and_its_output_comes_back():
    assert output_of([sys.executable, "-c", "print(input())"], 10, stdin="word\n") == "word\n"


def test_a_program_that_fails_is_one_line_with_all_that_it_said():
    with pytest.raises(LocalError, match="^bash -c echo out; echo wrong >&2; exit 3: out wrong$"):
        output_of(["bash", "-c", "echo out;\necho wrong >&2;\nexit 3"], 10)


def test_a_program_that_is_not_there_is_named():
    with pytest.raises(LocalError, match="no-such-program is missing"):
        output_of(["no-such-program"], 10)


def test_a_program_that_takes_too_long_ends_with_all_that_it_started(tmp_path):
    file = tmp_path / "started"
    line = ["bash", "-c", f"sleep 600 & echo $! > {file}; wait"]
    with pytest.raises(LocalError, match="not done after 1 seconds; stopped"):
        output_of(line, 1)
    wait_until(lambda: has_ended(int(file.read_text())))


def has_ended(number):
    try:
        return psutil.Process(number).status() == psutil.STATUS_ZOMBIE  # nobody may take its status
    except psutil.NoSuchProcess:
        return True
