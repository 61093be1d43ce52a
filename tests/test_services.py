"""Local services: a failure is one line that says what to do, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import wait_until

from include.errors import LocalError
from include.local.ports import answers, free_port
from include.local.services import Service, Services
from include.settings import ROOT, child_environment

SERVE = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port={}, bind='127.0.0.1')"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); "


def service(name, code, **options):
    return Service(name, [sys.executable, "-c", code], child_environment(), **options)


@pytest.fixture
def services(tmp_path):
    made = Services(tmp_path)
    yield made
    made.stop()


def test_services_start_side_by_side_and_are_ended_in_time(services, tmp_path):
    ports = [free_port(), free_port()]
    services.start(*(service(f"web-{port}", SERVE.format(port), port=port) for port in ports))
    assert all(answers(port) for port in ports)
    assert [name for _, name in services.recorded()] == [f"web-{port}" for port in ports]
    sockets = services.sockets
    assert len(str(sockets / "dbt.sock")) < 107
    services.stop()
    assert not any(answers(port) for port in ports)
    assert not sockets.exists()
    assert not (tmp_path / "services.json").exists()


def test_a_taken_port_is_one_line_that_says_what_to_set(services):
    port = free_port()
    services.start(service("first", SERVE.format(port), port=port))
    second = service("second", SERVE.format(port), port=port, port_setting="SLUICE_PORT")
    with pytest.raises(LocalError) as failure:
        services.start(second)
    assert str(failure.value) == (
        f"second: port {port} is taken by another program; "
        "end it, or choose another: SLUICE_PORT=<free port>"
    )


def test_a_service_that_ends_is_reported_with_its_last_words(services):
    code = "import sys; print('one'); print('no space left', file=sys.stderr); sys.exit(3)"
    with pytest.raises(LocalError, match=r"^short ended with status 3: no space left \(whole log"):
        services.start(service("short", code, announces="never said"))


def test_a_service_that_ends_later_is_seen_by_the_next_check(services):
    services.start(service("brief", "print('up', flush=True)", announces="up"))
    with pytest.raises(LocalError, match="^brief ended with status 0: up"):
        wait_until(lambda: services.check())


def test_a_service_that_is_never_ready_is_not_waited_for_for_ever(services):
    slow = service("slow", "import time; time.sleep(60)", announces="up", ready_seconds=0.5)
    with pytest.raises(LocalError, match=r"^slow: not ready after 0 s; see .*slow\.log"):
        services.start(slow)


def test_who_ignores_sigterm_is_killed(services, monkeypatch):
    monkeypatch.setattr("include.local.services.end_tree.__defaults__", (0.5,))
    services.start(service("stubborn", STUBBORN + "time.sleep(600)", announces="up"))
    ((pid, _),) = services.recorded()
    began = time.monotonic()
    services.stop()
    assert time.monotonic() - began < 10
    assert not psutil.pid_exists(pid)


OWNER = """
import sys, time
from pathlib import Path
from include.local.services import Service, Services
from include.settings import child_environment
services = Services(Path(sys.argv[1]))
code = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; "
code += "time.sleep(600)']); print('up', flush=True); time.sleep(600)"
command = [sys.executable, "-c", code]
services.start(Service("parent", command, child_environment(), announces="up"))
print(services.sockets, flush=True)
time.sleep(600)
"""


def test_when_the_command_is_killed_its_services_and_their_children_end(tmp_path):
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)],
        cwd=ROOT,
        env=child_environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    sockets = owner.stdout.readline().strip()
    ((pid, name),) = Services(tmp_path).recorded()
    assert name == "parent"
    family = [psutil.Process(pid), *psutil.Process(pid).children()]
    assert len(family) == 2
    os.killpg(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    wait_until(lambda: not any(process.is_running() for process in family))
    wait_until(lambda: not os.path.exists(sockets))  # noqa: PTH110
    assert not (tmp_path / "services.json").exists()


def test_a_guard_does_not_end_what_a_later_command_started(services, tmp_path):
    services.start(
        service("mine", "import time; print('up', flush=True); time.sleep(600)", announces="up")
    )
    assert Services(tmp_path).end_leftovers(started_by="another") == []
    assert [name for _, name in services.recorded()] == ["mine"]


def test_a_number_that_another_process_has_now_is_left_alone(tmp_path):
    entries = [{"pid": os.getpid(), "name": "gone", "started": 1.0}]
    (tmp_path / "services.json").write_text(json.dumps({"id": "x", "services": entries}))
    assert Services(tmp_path).end_leftovers() == []
