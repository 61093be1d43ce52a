"""Locked packages are audited by the real pip-audit, which asks a service that is local here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from include.local.ports import free_port
from include.settings import ROOT, child_environment, settings
from scripts.audit import borne

LOCKED = {
    "web": "requests==2.20.0\ncertifi==2026.1.1 ; python_full_version < '3.13'\n",
    "old": "# a comment\nrequests[socks]==2.19.0\n",
}
WEAK = {("requests", "2.20.0"): "GHSA-one", ("certifi", "2026.1.1"): "GHSA-two"}
ONE = "requests 2.20.0, in web.txt: CVE-one (GHSA-one): mended in 2.31.0"
TWO = "certifi 2026.1.1, in web.txt: CVE-two (GHSA-two): mended in 2.31.0"
HINT = "; make lock ARGS=--upgrade-package=…, or bear it in requirements/audit.yml"


class Service(BaseHTTPRequestHandler):
    """Answers as https://google.github.io/osv.dev/post-v1-query/ has it."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        name, version = asked["package"]["name"], asked["version"]
        self.server.asked.append((name, version))
        found = WEAK.get((name, version))
        body = json.dumps({"vulns": [self.vulnerability(found, name)]} if found else {})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    @staticmethod
    def vulnerability(key, name):
        events = [{"introduced": "0"}, {"fixed": "2.31.0"}]
        ranges = [{"type": "ECOSYSTEM", "events": events}]
        affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": ranges}]
        told = {"summary": "s", "details": "d", "modified": "2026-01-01T00:00:00Z"}
        aliases = [key.replace("GHSA", "CVE")]
        return {"id": key, "aliases": aliases, "affected": affected, **told}

    def log_message(self, *_):
        pass


@pytest.fixture
def service():
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        server.asked = []
        server.url = f"http://127.0.0.1:{server.server_port}/query"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def audit(tmp_path, service):
    for name, lines in LOCKED.items():
        (tmp_path / f"{name}.txt").write_text(lines)

    def run(exceptions, today="2026-06-01", url=service.url):
        (tmp_path / "audit.yml").write_text(exceptions)
        line = [settings().program("audit", "python"), "-m", "scripts.audit", "--today", today]
        done = subprocess.run(
            [*line, "--requirements", tmp_path, "--service", url],
            cwd=ROOT,
            env=child_environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode == 0) == (done.stderr == "")
        return done.stdout.splitlines() + done.stderr.splitlines()

    return run


def until(day, name="GHSA-one"):
    return f"{name}: {{until: {day}, reason: it is not called}}\n"


def test_a_weakness_fails_until_it_is_borne_and_again_when_its_time_is_over(audit, service):
    assert audit("{}") == [TWO + HINT, ONE + HINT]
    assert sorted(service.asked) == [
        ("certifi", "2026.1.1"),
        ("requests", "2.19.0"),
        ("requests", "2.20.0"),
    ]
    both = until("2026-06-01") + until("2027-01-01", "CVE-two")
    assert audit(both) == ["3 locked packages, 2 known weaknesses, all borne"]
    assert audit(both, today="2026-06-02") == [f"{ONE}; audit.yml bore GHSA-one until 2026-06-01"]
    gone = both + until("2027-01-01", "GHSA-none")
    assert audit(gone) == ["audit.yml: GHSA-none: no locked package has it; take it out"]


def test_a_service_that_does_not_answer_is_a_failure(audit):
    url = f"http://127.0.0.1:{free_port()}/query"
    (line,) = audit("{}", url=url)
    assert line.startswith(f"{url} does not answer: nothing is known (")


@pytest.mark.parametrize(
    ("exceptions", "message"),
    [
        ("- a", "audit.yml: expected keys and values, found ['a']"),
        ("A: {until: 2026-01-01, reson: b}", "audit.yml:1: A.reson: unknown key; did you mean"),
        ("A: {until: soon, reason: b}", "audit.yml:1: A.until: expected a day, found 'soon'"),
        ("A: {until: 2026-01-01 10:00:00, reason: b}", "audit.yml:1: A.until: expected a day, fou"),
        ("A: {until: 2026-01-01}", "audit.yml:1: A.reason: expected a reason, found None"),
    ],
)
def test_an_exception_without_day_or_reason_is_refused(audit, service, exceptions, message):
    (line,) = audit(exceptions)
    assert line.startswith(message)
    assert service.asked == []


def test_every_locked_package_is_asked_for(audit, service, tmp_path):
    for path in tmp_path.glob("*.txt"):
        path.unlink()
    locked = set()
    for path in ROOT.glob("requirements/*.txt"):
        shutil.copy(path, tmp_path)
        locked |= set(re.findall(r"^([\w.-]+)==([^ ;\n]+)", path.read_text(), re.MULTILINE))
    assert audit("{}") == [f"{len(locked)} locked packages, no known weakness"]
    assert len(locked) > 200 and set(service.asked) == locked


def test_what_is_borne_here_has_a_day_and_a_reason():
    borne(ROOT / "requirements/audit.yml")
