"""What Airflow's KubernetesExecutor makes of deploy/kubernetes/: a pod for each kind of task."""

from __future__ import annotations

import pytest
import yaml

from include.errors import ConfigError
from include.pods import KINDS, pod_options
from include.settings import ROOT, settings

FOLDER = ROOT / "deploy" / "kubernetes"
VALUES = yaml.safe_load((FOLDER / "values.yaml").read_text())
SETTINGS = yaml.safe_load((FOLDER / "settings.yaml").read_text())
VARIABLES = {item["name"]: item["value"] for item in VALUES["env"]}


def template(kind):
    return yaml.safe_load((FOLDER / "pods" / f"{kind}.yaml").read_text())


@pytest.fixture
def templates(monkeypatch):
    """The environment of values.yaml; what is known of another is forgotten."""
    pod_options.cache_clear()
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    yield monkeypatch
    pod_options.cache_clear()


@pytest.fixture
def tasks(dag_bag, templates):
    """Those of the standard DAG, imported where the settings name templates."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(ROOT / "dags" / "elt_standard.py")
    assert bag.import_errors == {}
    return bag.dags["elt_standard"].tasks


@pytest.mark.skipif(not settings().has_shop, reason="its DAGs were removed")
def test_each_task_is_told_the_template_of_its_kind(tasks):
    found = {task.task_id: task.executor_config["pod_template_file"] for task in tasks}
    kinds = {task_id: task_id.partition(".")[0] for task_id in found}
    assert set(kinds.values()) == set(KINDS)
    assert found == {key: str(FOLDER / "pods" / f"{kind}.yaml") for key, kind in kinds.items()}


def test_no_task_is_told_of_pods_where_the_settings_do_not(dag_bag):
    for dag in dag_bag.dags.values():
        assert not any(task.executor_config for task in dag.tasks)


def test_a_kind_without_a_template_is_an_error_of_one_line(templates, tmp_path):
    (tmp_path / "load.yaml").touch()
    templates.setenv("SLUICE_POD_TEMPLATES", str(tmp_path))
    assert pod_options("load")["executor_config"] == {
        "pod_template_file": str(tmp_path / "load.yaml")
    }
    with pytest.raises(ConfigError, match=r"extract\.yaml: no such file; it is for extract tasks"):
        pod_options("extract")


@pytest.mark.parametrize("kind", KINDS)
def test_the_executor_makes_a_whole_pod_of_a_template(dag_bag, templates, kind):
    provider = pytest.importorskip("airflow.providers.cncf.kubernetes.pod_generator")
    from kubernetes.client import ApiClient

    generator = provider.PodGenerator

    file = pod_options(kind)["executor_config"]["pod_template_file"]
    made = generator.construct_pod(
        dag_id="elt_standard",
        task_id=f"{kind}.orders",
        pod_id="one",
        try_number=1,
        kube_image="registry.example.com/sluice:1",
        date=None,
        args=["python", "-m", "airflow.sdk.execution_time.execute_workload"],
        pod_override_object=None,
        base_worker_pod=generator.deserialize_model_file(file),
        namespace="airflow",
        scheduler_job_id="1",
    )
    pod = ApiClient().sanitize_for_serialization(made)
    assert pod["metadata"]["annotations"]["task_id"] == f"{kind}.orders"
    (container,) = pod["spec"]["containers"]
    assert container["image"] == "registry.example.com/sluice:1"
    assert container["args"][-1] == "airflow.sdk.execution_time.execute_workload"
    # Nothing of the file is lost: what the client does not know it would leave out.
    (wanted,) = template(kind)["spec"]["containers"]
    for key, value in wanted.items():
        left = [item for item in container[key] if item in value] if key == "env" else None
        assert (left or container[key]) == value, key
    assert {**pod["spec"], "containers": 0} == {**template(kind)["spec"], "containers": 0}


def test_the_pods_of_all_kinds_differ_in_name_resources_and_disk_alone():
    rest = []
    for kind in KINDS:
        pod = template(kind)
        assert pod["metadata"].pop("name") == f"sluice-{kind.replace('_', '-')}"
        resources = pod["spec"]["containers"][0].pop("resources")
        (disk,) = (volume.pop("emptyDir") for volume in pod["spec"]["volumes"])
        assert disk["sizeLimit"] == resources["limits"]["ephemeral-storage"]
        assert set(resources["requests"]) == {"cpu", "memory", "ephemeral-storage"}
        rest.append(pod)
    assert all(pod == rest[0] for pod in rest)


def test_a_pod_reads_what_values_and_settings_name():
    (container,) = template("load")["spec"]["containers"]
    named = [next(iter(source.values())) for source in container["envFrom"]]
    assert yaml.safe_load(VALUES["extraEnvFrom"]) == container["envFrom"]
    assert named[0]["name"] == SETTINGS["metadata"]["name"]
    data = SETTINGS["data"]
    assert all(isinstance(value, str) for value in data.values())
    assert data["SLUICE_SPOOL"].startswith("s3://") and data["SLUICE_ENV"] == "prod"
    assert (ROOT / VARIABLES["SLUICE_POD_TEMPLATES"]).is_dir()
