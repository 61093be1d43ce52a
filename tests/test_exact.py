"""What is said to be found alone is found alone by dbt's own code, on many small random groups."""

from __future__ import annotations

import json
import subprocess

from include.settings import ROOT, child_environment, settings

COMPARE = """
import json, random
from dbt.graph.selector_methods import QualifiedNameSelectorMethod as Method
from include.schedules.exact import ExactSelectors
from include.schedules.project import Project, Resource

pick, method = random.Random(7), Method(None, None, [])
alone = narrowed = 0
for _ in range(4000):
    nodes = {}
    for _ in range(pick.randint(2, 7)):
        fqn = [pick.choice("pq"), *pick.choices("ab", k=pick.randint(0, 2))]
        fqn.append(pick.choice(["a", "b", "a.b", "p.a", "a_v1", "v1"]))
        versioned = pick.random() < 0.3
        fqn += [pick.choice(["v1", "v2"])] * versioned
        nodes["model." + "/".join(fqn)] = (fqn, versioned)
    resources = {
        key: Resource(key, "model", key, "fqn:" + ".".join(fqn), (), (), key)
        for key, (fqn, _) in nodes.items()
    }
    def find(select):
        name = select.removeprefix("fqn:").partition(",")[0]
        return frozenset(k for k, (fqn, v) in nodes.items() if method.node_is_match(name, fqn, v))
    def match(select):
        global narrowed
        narrowed += 1
        return find(select) if "," not in select else frozenset({asked})
    exact = ExactSelectors(Project("v12", resources, {}, match))
    for asked, resource in resources.items():
        select = exact.select(resource, {asked})
        if "," not in select:
            alone += 1
            assert find(select) == {asked}, (select, nodes)
print(json.dumps([alone, narrowed]))
"""


def test_a_selector_that_is_not_narrowed_finds_one_node_by_dbts_own_code():
    done = subprocess.run(
        [settings().program("dbt", "python"), "-c", COMPARE],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    alone, narrowed = json.loads(done.stdout)
    assert alone > 5000
    assert narrowed > 1000
