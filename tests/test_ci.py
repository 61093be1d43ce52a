"""Both CI configurations run the same make targets, which a person can run as well."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import yaml

from include.settings import ROOT

MAKE = re.compile(r"\bmake (?:--[\w-]+ )*([a-z][a-z-]*)")
WORKFLOWS = [yaml.safe_load(path.read_text()) for path in ROOT.glob(".github/workflows/*.yml")]
CIRCLE = yaml.safe_load((ROOT / ".circleci/config.yml").read_text())
DEPLOY = "astronomer/deploy-action@"


def lines_on_github():
    """What the workflows' steps run, for each entry of a matrix."""
    for job in (job for workflow in WORKFLOWS for job in workflow["jobs"].values()):
        for target in job.get("strategy", {}).get("matrix", {}).get("target", [""]):
            for step in job["steps"]:
                yield step.get("run", "").replace("${{ matrix.target }}", target)


def lines_on_circle():
    """What the jobs' steps run."""
    for job in CIRCLE["jobs"].values():
        for step in (step["run"] for step in job["steps"] if "run" in step):
            yield step if isinstance(step, str) else step["command"]


def targets(lines):
    return {target for line in lines for target in MAKE.findall(line)}


def test_both_run_the_same_targets():
    github, circle = targets(lines_on_github()), targets(lines_on_circle())
    assert {"check", "test", "audit", "sbom", "build-changed", "edges-diff", "image"} <= github
    assert github | {"deploy"} == circle
    actions = [
        step.get("uses", "") for w in WORKFLOWS for s in w["jobs"].values() for step in s["steps"]
    ]
    assert [action for action in actions if action.startswith(DEPLOY)]
    assert all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in circle)


def test_nothing_is_deployed_before_all_has_passed():
    (workflow,) = (w for w in WORKFLOWS if "deploy" in w["jobs"])
    assert workflow["jobs"]["deploy"]["needs"] == ["make", "image"]
    assert workflow["jobs"]["make"]["strategy"]["matrix"]["target"] == ["check", "test"]
    (deploy,) = (j["deploy"] for j in CIRCLE["workflows"]["ci"]["jobs"] if "deploy" in j)
    assert deploy["requires"] == ["check", "test", "image"]
    assert deploy["filters"] == {"branches": {"only": "main"}}


def test_both_deploy_with_the_same_version_of_the_cli():
    (version,) = re.findall(r"install\.astronomer\.io .* (v[\d.]+)", "\n".join(lines_on_circle()))
    steps = (s for w in WORKFLOWS for job in w["jobs"].values() for s in job["steps"])
    (action,) = (step for step in steps if step.get("uses", "").startswith(DEPLOY))
    assert action["with"]["cli-version"] == version


def test_a_job_that_compares_has_the_history():
    for workflow in WORKFLOWS:
        for job in workflow["jobs"].values():
            if any("REV=" in step.get("run", "") for step in job["steps"]):
                assert job["steps"][0]["with"]["fetch-depth"] == 0


@pytest.fixture
def make(tmp_path):
    """`make`, where the path has what a shell has, and programs that tell how they were called."""
    for name in ("bash", "make"):
        (tmp_path / name).symlink_to(shutil.which(name))

    def run(target, *programs, **variables):
        for name in programs:
            (tmp_path / name).write_text(f'#!{tmp_path}/bash\necho "{name} $*"\n')
            (tmp_path / name).chmod(0o700)
        return subprocess.run(
            [tmp_path / "make", "--no-print-directory", target],
            cwd=ROOT,
            env={"PATH": str(tmp_path), **variables},
            capture_output=True,
            text=True,
            timeout=30,
        )

    return run


@pytest.mark.parametrize(
    ("target", "program", "line"),
    [
        ("image", "docker", "docker build --tag sluice --file Dockerfile .\n"),
        ("deploy", "astro", "astro deploy an-id\n"),
    ],
)
def test_a_program_is_called_or_said_to_be_missing(make, target, program, line):
    missing = make(target)
    assert missing.returncode
    assert missing.stderr.startswith(f"{target}: no {program} on the PATH; install ")
    assert make(target, program, ASTRO_DEPLOYMENT_ID="an-id").stdout == line
