from __future__ import annotations

import io
import pickle
from dataclasses import replace

import pytest

from include.errors import EdgeFileError
from include.schedules.edge_file import (
    DataTest,
    EdgeFile,
    ForeignParent,
    Freshness,
    Node,
    read_edge_file,
    sealed,
    to_bytes,
)

A = Node("model.shop.a", "model", "a", "fqn:shop.a", ("x",), (DataTest("test.shop.t", "t"),), ())
B = Node("seed.shop.b", "seed", "b", "fqn:shop.b", (), (), ())
P = ForeignParent("model.shop.o", "o", A.id, ("late_schedule",), "any", 36)
TOLD = {"pool": "heavy", "retries": 0, "timeout": 1800}
C = replace(B, id="model.shop.c", options=TOLD, skip_if_unchanged=True, reads=(A.id, P.id))
S = Freshness("source.shop.raw.s", "source.raw.s", "source:shop.raw.s")
EDGES = sealed(
    EdgeFile(
        "day_schedule",
        "v12",
        "",
        "model",
        6,
        (A, B, C),
        ((B.id, A.id),),
        (P,),
        hooks=("on-run-start",),
        task_per="chain",
        freshness=(S,),
        docs=True,
    )
)


def changed(**values):
    return to_bytes(sealed(replace(EDGES, **values)))


class Malicious:
    def __reduce__(self):
        return print, ("executed",)


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "daily_schedule.pickle"
        path.write_bytes(content)
        return path

    return write


def test_what_is_written_is_read_again(written):
    assert read_edge_file(written(to_bytes(EDGES))) == EDGES


def test_the_file_holds_builtins_only(written):
    assert isinstance(pickle.loads(to_bytes(EDGES)), dict)  # noqa: S301
    assert b"include" not in to_bytes(EDGES)


def test_a_malicious_pickle_executes_nothing(written, capsys):
    path = written(pickle.dumps({"format": 4, "nodes": Malicious()}))
    with pytest.raises(EdgeFileError, match="asks for builtins.print"):
        read_edge_file(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"not a pickle", "it is not an edge file"),
        (b"", "it is not an edge file"),
        (pickle.dumps([1]), "it is not an edge file"),
        (
            pickle.dumps({"format": 99}),
            "its format is 99, this Sluice reads 4, a newer Sluice wrote it",
        ),
        (pickle.dumps({"format": 1}), "its format is 1, this Sluice reads 4"),
        (pickle.dumps({"format": 4}), "its content is not of the expected form"),
        (pickle.dumps({"format": 4, "nodes": 1}), "its content is not of the expected form"),
        (to_bytes(EDGES)[:-10], "it is not an edge file"),
        (to_bytes(replace(EDGES, test_gating="none")), "it was changed after it was written"),
        (changed(edges=((P.id, A.id),)), "an edge names a node that is not in it"),
        (changed(nodes=(A,)), "an edge names a node that is not in it"),
        (changed(nodes=(A, replace(B, kind="unit_test"))), "a node's kind is not one of model,"),
        (changed(test_gating="all"), "its test_gating is not one of model, none"),
        (changed(foreign_parents=(replace(P, policy="never"),)), "a gate's policy is not one of"),
        (changed(task_per="schedule"), "its task_per is not one of model, build, chain"),
        (changed(hooks=([],)), "a hook is not one of on-run-start, on-run-end"),
        (changed(hooks=("on-run-en",)), "a hook is not one of on-run-start, on-run-end"),
        (changed(nodes=(A, B, replace(C, options={"queue": "q"}))), "a node's option is not one"),
        (changed(nodes=(A, B, replace(C, options=[1]))), "its content is not of the expected form"),
        (changed(nodes=(A, B, replace(C, reads=(1,)))), "a node reads what is no id"),
        (changed(freshness=({"id": 1},)), "its content is not of the expected form"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_that_says_what_to_do(written, content, why):
    path = written(content)
    with pytest.raises(EdgeFileError) as error:
        read_edge_file(path)
    message = str(error.value)
    assert message.startswith(f"{path}: {why}")
    assert message.endswith("write it anew with make edges")
    assert "\n" not in message


def test_equal_strings_are_written_once_however_they_came_to_be():
    again = replace(EDGES, edges=((f"{B.id}x"[:-1], "".join(A.id)),))
    assert to_bytes(again) == to_bytes(EDGES)


def test_what_is_told_of_no_task_is_not_written():
    def node(number):
        return pickle.loads(to_bytes(EDGES))["nodes"][number]  # noqa: S301

    assert node(2).keys() - node(1).keys() == {"options", "skip_if_unchanged", "reads"}


def test_the_bytes_are_those_of_the_pickle_format_and_not_of_one_pickler():
    stream = io.BytesIO()
    pickle._Pickler(stream, protocol=4).dump(pickle.loads(to_bytes(EDGES)))  # noqa: S301
    assert stream.getvalue() == to_bytes(EDGES)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(EdgeFileError, match="gone.pickle: it is missing"):
        read_edge_file(tmp_path / "gone.pickle")


def test_an_oversized_file_is_not_read(written):
    with pytest.raises(EdgeFileError, match="at most"):
        read_edge_file(written(b"0" * (16 * 1024 * 1024 + 1)))
