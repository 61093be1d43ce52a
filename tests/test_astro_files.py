"""What `astro dev start` reads, and both images. What can be checked without Docker, is."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess

import pytest
import yaml
from conftest import wait_until

from include.local.airflow import connections
from include.local.ports import answers, free_port
from include.settings import ROOT, child_environment, load_local_environment, settings
from scripts import image_sizes

DAGS = len([*ROOT.glob("dags/*.py")])
# https://www.astronomer.io/docs/astro/cli/develop-project#configure-airflow_settingsyaml
SETTINGS = {
    "connections": {"conn_id", "conn_type", "conn_host", "conn_schema", "conn_login"}
    | {"conn_password", "conn_port", "conn_uri", "conn_extra"},
    "pools": {"pool_name", "pool_slot", "pool_description"},
    "variables": {"variable_name", "variable_value"},
}


DOCKERFILES = [ROOT / "Dockerfile", ROOT / "deploy/kubernetes/Dockerfile"]


@pytest.fixture
def compose():
    return yaml.safe_load((ROOT / "docker-compose.override.yml").read_text())


def test_airflow_settings_have_the_keys_that_astro_knows():
    content = yaml.safe_load((ROOT / "airflow_settings.yaml").read_text())
    assert set(content) == {"airflow"}
    assert set(content["airflow"]) <= set(SETTINGS)
    for kind, known in SETTINGS.items():
        for entry in content["airflow"].get(kind) or []:
            assert set(entry) <= known, entry
    assert isinstance(content["airflow"]["connections"][0]["conn_port"], int)


def test_local_connections_equal_those_of_airflow_settings():
    listed = yaml.safe_load((ROOT / "airflow_settings.yaml").read_text())["airflow"]["connections"]
    made = connections(settings({}), listed[0]["conn_password"])
    for entry, body in zip(listed, made, strict=True):
        assert (body["connection_id"], body["login"]) == (entry["conn_id"], entry["conn_login"])
        assert yaml.safe_load(body["extra"] or "{}") == entry["conn_extra"]
        assert body["password"] == entry["conn_password"]
        if entry["conn_type"] == "postgres":
            assert (body["host"], body["port"]) == (entry["conn_host"], entry["conn_port"])


def test_the_password_in_the_settings_is_that_of_the_example_environment(monkeypatch):
    monkeypatch.delenv("SLUICE_LOCAL_PASSWORD")
    load_local_environment()
    listed = yaml.safe_load((ROOT / "airflow_settings.yaml").read_text())["airflow"]["connections"]
    assert {entry["conn_password"] for entry in listed} == {os.environ["SLUICE_LOCAL_PASSWORD"]}


def test_every_path_in_the_compose_file_and_the_dockerfile_is_there(compose):
    named = [set() for _ in range(2)]
    for service in compose["services"].values():
        named[0] |= {v.partition(":")[0] for v in service.get("volumes", []) if v[0] == "."}
        named[0] |= {word for word in service.get("command", []) if "/" in word}
    for line in (line for file in DOCKERFILES for line in image_sizes.steps(file)):
        if line.startswith("COPY"):
            named[1] |= {w for w in shlex.split(line)[1:-1] if not w.startswith("--")}
    assert "./dbt" in named[0] and "requirements/dbt.*" in named[1]
    for path in named[0] | named[1]:
        assert list(ROOT.glob(path)) if "*" in path else (ROOT / path).exists(), path


def test_every_service_that_runs_or_parses_dags_has_the_dbt_project(compose):
    for name in ("scheduler", "dag-processor", "triggerer"):
        assert "./dbt:/usr/local/airflow/dbt:ro" in compose["services"][name]["volumes"]


def test_the_api_server_reads_what_runs_of_the_scheduler_leave(compose):
    place = ".local"
    assert settings({}).artifacts == str(ROOT / place / "artifacts")
    volumes = compose["services"]["scheduler"]["volumes"]
    (volume,) = (v for v in volumes if v.endswith(f":/usr/local/airflow/{place}"))
    assert compose["services"]["api-server"]["volumes"] == [f"{volume}:ro"]
    assert volume.partition(":")[0] in compose["volumes"]
    # A volume takes the owner of the folder that it covers: without one, root.
    (owned,) = re.findall(r"^RUN mkdir .* && chown astro:0 (.+)$", DOCKERFILES[0].read_text(), re.M)
    assert place in owned.split()


@pytest.mark.parametrize("file", DOCKERFILES, ids=["astro", "kubernetes"])
def test_one_more_provider_makes_no_environment_of_an_image_anew(file):
    listed = image_sizes.steps(file)
    after = listed[listed.index("COPY requirements.txt .") :]
    assert not [step for step in after if "install.sh" in step]


@pytest.mark.parametrize("file", DOCKERFILES, ids=["astro", "kubernetes"])
def test_a_new_model_makes_no_environment_of_an_image_anew(file):
    copy, *rest = image_sizes.anew(image_sizes.steps(file))
    assert re.fullmatch(r"COPY --chown=\w+:0 \. \.", copy)
    assert rest == ["RUN .venvs/dbt/bin/python -m scripts.generate_edges --check"]


def test_the_image_for_astro_stands_on_one_that_does_not_copy_the_project_first():
    assert re.search(r"^FROM \S+-base$", DOCKERFILES[0].read_text(), re.M)


def test_the_image_holds_the_project_but_no_secret_and_no_test(monkeypatch, tmp_path):
    (tmp_path / ".dockerignore").write_text((ROOT / ".dockerignore").read_text())
    kept = ["dags/a.py", "dbt/models/a.sql", ".astro/config.yaml", "include/local/a.py"]
    left = [".env", ".git/config", "tests/a.py", "dags/__pycache__/a.pyc", "dbt/target/a.json"]
    for name in (*kept, *left):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(image_sizes, "ROOT", tmp_path)
    assert image_sizes.context() == sorted([".dockerignore", *kept])


@pytest.fixture
def pytest_as_in_the_image(tmp_path):
    """The image has Airflow and pytest, and none of pytest's plugins that are ours."""
    python = settings().program("test-airflow", "python")

    def run(*line):
        return subprocess.run(
            [python, "-m", "pytest", "-p", "no:timeout", "-q", *line],
            cwd=ROOT,
            env=child_environment({"PYTHONPATH": "", "AIRFLOW_HOME": str(tmp_path / "home")}),
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.mark.skipif(not DAGS, reason="no DAG is here yet")
def test_astro_dev_parse_passes_and_names_a_file_that_does_not_import(
    pytest_as_in_the_image, tmp_path
):
    done = pytest_as_in_the_image(".astro/test_dag_integrity_default.py")
    assert f"{DAGS} passed" in done.stdout, done.stdout
    for name in (".astro", "dags", "include"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "dags/broken.py").write_text("import nothing_of_this_name  # a dag of airflow\n")
    done = pytest_as_in_the_image(tmp_path / ".astro/test_dag_integrity_default.py")
    assert done.returncode == 1
    assert f"1 failed, {DAGS} passed" in done.stdout
    assert "No module named 'nothing_of_this_name'" in done.stdout


def test_astro_dev_pytest_collects_what_its_environment_can_run(pytest_as_in_the_image):
    done = pytest_as_in_the_image("tests/", "--collect-only")
    assert done.returncode == 0, done.stdout
    assert "tests/dags/test_dag_integrity.py::test_every_dag_imports" in done.stdout
    assert not re.search(r"^tests/(?!dags/)", done.stdout, re.M)


@pytest.mark.parametrize("file", DOCKERFILES, ids=["astro", "kubernetes"])
def test_an_image_makes_every_environment_that_tasks_start(file):
    made = set(re.findall(r"^RUN scripts/install\.sh (.+)$", file.read_text(), re.M))
    used = {"tap-postgres", "target-snowflake"}
    for file in (ROOT / "include").rglob("*.py"):
        if "local" not in file.parts:
            code = file.read_text()
            used |= set(re.findall(r'(?:run_program|\.program)\(\s*"([\w-]+)"', code))
    assert used == made


@pytest.mark.parametrize("name", ["postgres", "snowflake"])
def test_a_stand_in_serves_as_the_compose_file_starts_it(compose, tmp_path, name):
    service = next(s for s in compose["services"].values() if name in s.get("command", []))
    port = free_port()
    variables = {f"SLUICE_{name.upper()}_PORT": str(port), "SLUICE_DATA": str(tmp_path)}
    own = {"SLUICE_USER": "0", "SLUICE_VENVS": str(settings().venvs)}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            service["command"], cwd=ROOT, env=os.environ | variables | own, stdout=log, stderr=log
        )
    try:
        wait_until(lambda: answers(port) or process.poll() is not None)
        filled = name == "postgres" and settings().has_shop
        wanted = '"orders": 7000' if filled else f"listening on 127.0.0.1:{port}"
        wait_until(lambda: wanted in (tmp_path / "log").read_text(), seconds=60)
    finally:
        process.terminate()
        process.wait(30)
    wait_until(lambda: not answers(port))
