"""Blend, stackers, their mix and the decision, with stackers drawn by hand as ONNX graphs."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from inference.basics.errors import SessionError
from inference.ensemble.blend import blend
from inference.ensemble.decide import decide
from inference.ensemble.pairs import find_pairs, name_features
from inference.ensemble.second_stage import choose_answers, mix_scores
from inference.ensemble.stackers import (
    Inputs,
    StackerSession,
    Stage,
    list_used_blends,
    list_used_stackers,
    open_stage,
)
from inference.manifest.decision import Calibration, Decision, GroupDecision
from inference.manifest.labels import Labels
from inference.manifest.model import ALL, FileEntry, Model
from inference.manifest.records import BLEND, Ensemble, LabelsEntry, Manifest, Stacker
from inference.manifest.task import Task
from inference.task.answers import list_answers

LABELS = Labels((10, 11, 12, 20, 21), ("c::a", "t::b", "c::d", "t::e", "t::f"), {"c": (0, 2), "t": (1, 3, 4)})
COUNTS = [5, 4, 3, 2, 1]
UNUSED = FileEntry("x.onnx", "0" * 64)
RULES = {"c": GroupDecision(0.4, 0, 2), "t": GroupDecision(0.4, 0, 3)}
STRICTER = {"c": GroupDecision(0.6, 0, 2), "t": GroupDecision(0.6, 0, 3)}
PRIOR = {"c": (12,), "t": (11, 21)}


def make_model(name: str, group: str) -> Model:
    return Model(name, "x", group, 64, (0.5,) * 3, (0.5,) * 3, "bilinear")


def make_manifest(stackers: tuple[Stacker, ...], mix: dict[str, dict[str, float]]) -> Manifest:
    """Return a manifest of three models; the stackers' decision is stricter than the blend's."""
    return Manifest(
        labels=LabelsEntry("labels.csv", "0" * 64, {"c": "c::", "t": "t::"}),
        models=(make_model("one", ALL), make_model("two", "c"), make_model("three", "t")),
        ensemble=Ensemble({"c": {"one": 1.0, "two": 3.0}, "t": {"one": 1.0, "three": 1.0}}, stackers, mix),
        decision=Decision(STRICTER, PRIOR, fallback=RULES),
    )


def write_graph(path: Path, name: str, shape: list[object], value: np.ndarray, notes: dict[str, object]) -> None:
    """Write a graph whose output is its input's rows, each with the same `value`."""
    nodes = [
        helper.make_node("Shape", [name], ["rows"], start=0, end=1),
        helper.make_node("Concat", ["rows", "rest"], ["target"], axis=0),
        helper.make_node("Expand", ["value", "target"], ["out"]),
    ]
    rest = numpy_helper.from_array(np.array(value.shape, np.int64), "rest")
    graph = helper.make_graph(
        nodes,
        "stacker",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [rest, numpy_helper.from_array(value.astype(np.float32), "value")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    for key, note in notes.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, json.dumps(note)
    onnx.save(model, path)


@pytest.fixture
def cnn(tmp_path: Path) -> StackerSession:
    """A stacker that gives the labels of `c` 0.9 and 0.3."""
    write_graph(tmp_path / "cnn.onnx", "scores", ["images", 2, 2], np.array([0.9, 0.3]), {})
    return StackerSession(Stacker("cnn", "cnn", "c", ("one", "two"), UNUSED, 0.0), tmp_path / "cnn.onnx", LABELS)


@pytest.fixture
def trees(tmp_path: Path) -> StackerSession:
    """A stacker that gives 0.7 to the best label of each member."""
    names = list(name_features(("one", "three"), ()))
    notes: dict[str, object] = {"counts": COUNTS, "features": names}
    write_graph(tmp_path / "trees.onnx", "features", ["pairs", len(names)], np.array(0.7), notes)
    stacker = Stacker("trees", "trees", ALL, ("one", "three"), UNUSED, 0.0, top=1)
    return StackerSession(stacker, tmp_path / "trees.onnx", LABELS)


def draw_scores(images: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        name: random.random((images, columns)).astype(np.float16)
        for name, columns in (("one", 5), ("two", 2), ("three", 3))
    }


def test_a_mix_divides_by_the_sum_of_its_weights(cnn: StackerSession) -> None:
    manifest = make_manifest((cnn.stacker,), {"c": {BLEND: 3.0, "cnn": 1.0}, "t": {BLEND: 0.5}})
    scores = draw_scores(4)
    blended = blend(scores, manifest, LABELS)
    mixed = mix_scores(scores, {BLEND: blended}, np.zeros((4, 4), np.float32), manifest, LABELS, [cnn])
    np.testing.assert_allclose(mixed[:, [0, 2]], 0.75 * blended[:, [0, 2]] + 0.25 * np.array([0.9, 0.3]), rtol=1e-6)
    np.testing.assert_allclose(mixed[:, [1, 3, 4]], blended[:, [1, 3, 4]], rtol=1e-6)


def test_labels_that_are_no_pair_of_the_trees_keep_the_score_of_the_blend(trees: StackerSession) -> None:
    members = np.random.default_rng(1).random((6, 2, 5)).astype(np.float32)
    blended = np.random.default_rng(2).random((6, 5)).astype(np.float32)
    rows, columns = find_pairs(members, 1, np.array(COUNTS))
    wanted = blended.copy()
    wanted[rows, columns] = 0.7
    assert 6 <= len(rows) <= 12, "some labels are no pair"
    found = trees.score(Inputs(members, blended, np.zeros((6, 4), np.float32)))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_group_without_scores_gets_its_prior_labels_and_the_other_group_is_decided_by_the_blend(
    cnn: StackerSession,
) -> None:
    manifest = make_manifest((cnn.stacker,), {"c": {"cnn": 1.0}, "t": {BLEND: 1.0}})
    scores = draw_scores(5)
    scores["one"][1:] = np.nan
    scores["three"][2] = np.nan  # no tag
    scores["two"][3] = np.nan  # no culture
    scores["two"][4] = scores["three"][4] = np.nan  # nothing
    found = choose_answers(Stage(manifest, LABELS, (cnn,)), scores, np.zeros((5, 4), np.float32))
    blended = blend(scores, manifest, LABELS)
    assert set(found[0]) & {10, 12} == {10}, "the stacker"

    def select(row: int, columns: tuple[int, ...], threshold: float) -> set[int]:
        return {LABELS.ids[column] for column in columns if blended[row, column] >= threshold}

    assert set(found[1]) == {10} | select(1, (1, 3, 4), 0.6), "all groups: the stacker's rules"
    assert set(found[2]) == select(2, (0, 2), 0.4) | {11, 21}, "the blend's rules"
    assert set(found[3]) == {12} | select(3, (1, 3, 4), 0.4)
    assert found[4] == (11, 12, 21)
    assert found == [tuple(sorted(ids)) for ids in found]


def test_rows_do_not_depend_on_the_others(cnn: StackerSession, trees: StackerSession) -> None:
    mix = {"c": {"cnn": 0.5, "trees": 0.5}, "t": {"trees": 1.0, BLEND: 1.0}}
    stage = Stage(make_manifest((cnn.stacker, trees.stacker), mix), LABELS, (cnn, trees))
    scores, traits = draw_scores(9), np.random.default_rng(3).random((9, 4)).astype(np.float32)
    scores["two"][4] = scores["one"][4] = np.nan
    apart = [
        choose_answers(stage, {name: array[row : row + 1] for name, array in scores.items()}, traits[row : row + 1])
        for row in range(9)
    ]
    assert choose_answers(stage, scores, traits) == [labels for (labels,) in apart]


def test_without_stackers_the_rule_of_the_manifest_decides() -> None:
    curve = Calibration((0.0, 1.0), (0.0, 1.0))
    manifest = make_manifest((), {})
    decision = dataclasses.replace(manifest.decision, rule="expected_f", calibration={"c": curve, "t": curve})
    manifest = dataclasses.replace(manifest, decision=decision)
    stage = Stage(manifest, LABELS, ())
    assert stage.drop_stackers() == stage
    scores = draw_scores(6)
    wanted = list_answers(decide(blend(scores, manifest, LABELS), LABELS, decision), LABELS, Task())
    assert choose_answers(stage, scores, np.zeros((6, 4), np.float32)) == wanted


@pytest.mark.parametrize("rule", ["thresholds", "expected_f"])
def test_an_image_gets_at_least_one_label_if_the_prior_of_its_lost_group_is_empty(rule: str) -> None:
    curve = Calibration((0.0, 1.0), (0.0, 1.0))
    decision = Decision(
        STRICTER,
        {"c": (), "t": (20,)},
        rule=rule,  # type: ignore[arg-type]
        calibration={"c": curve, "t": curve},
    )
    scores = np.array([[np.nan, 0.1, np.nan, 0.2, 0.1], [0.2, np.nan, 0.1, np.nan, np.nan]], np.float32)
    first, second = list_answers(decide(scores, LABELS, decision), LABELS, Task())
    assert first[0] in (11, 20) and set(first) <= {11, 20, 21}
    assert 20 in second
    if rule == "thresholds":
        assert (first, second) == ((20,), (20,)), "no label of a known group is forced beside the prior labels"


THEIRS = {"c": {"two": 1.0}, "t": {"three": 1.0}}  # the weights of a further blend


def change(manifest: Manifest, **ensemble: object) -> Manifest:
    return dataclasses.replace(manifest, ensemble=dataclasses.replace(manifest.ensemble, **ensemble))  # type: ignore[arg-type]


def decide_row(stage: Stage, scores: np.ndarray, threshold: float) -> tuple[int, ...]:
    """Decide one image by a threshold: the rule of both groups."""
    chosen = [label for label, score in zip(stage.labels.ids, scores, strict=True) if score >= threshold]
    return tuple(sorted(chosen)) or (stage.labels.ids[int(scores.argmax())],)


def test_two_blends_are_mixed_without_a_stacker_and_the_main_one_decides_where_the_other_is_missing() -> None:
    manifest = change(
        make_manifest((), {"c": {BLEND: 1.0, "theirs": 3.0}, "t": {"theirs": 1.0}}), blends={"theirs": THEIRS}
    )
    assert list_used_blends(manifest) == {BLEND: {"c"}, "theirs": {"c", "t"}}
    stage, scores = Stage(manifest, LABELS, ()), draw_scores(12)
    assert stage.drop_stackers() == stage, "it has none"
    scores["three"][[3, 4]] = np.nan
    scores["two"][[4, 5]] = np.nan
    found = choose_answers(stage, scores, np.zeros((12, 4), np.float32))
    one, two, three = (scores[name].astype(np.float64) for name in ("one", "two", "three"))
    for row in range(12):
        mixed, alone = np.empty(5), np.empty(5)
        alone[[0, 2]] = one[row, [0, 2]] if np.isnan(two[row, 0]) else 0.25 * one[row, [0, 2]] + 0.75 * two[row]
        alone[[1, 3, 4]] = one[row, [1, 3, 4]] if np.isnan(three[row, 0]) else (one[row, [1, 3, 4]] + three[row]) / 2
        mixed[[0, 2]], mixed[[1, 3, 4]] = 0.25 * alone[[0, 2]] + 0.75 * two[row], three[row]
        wanted = decide_row(stage, alone, 0.4) if row in (3, 4, 5) else decide_row(stage, mixed, 0.6)
        assert found[row] == wanted, row


def test_a_blend_that_nothing_reads_is_not_needed() -> None:
    manifest = change(make_manifest((), {"c": {BLEND: 1.0, "theirs": 0.0}}), blends={"theirs": THEIRS})
    assert list_used_blends(manifest) == {BLEND: {"c", "t"}}
    scores = draw_scores(4)
    wanted = choose_answers(Stage(make_manifest((), {}), LABELS, ()), scores, np.zeros((4, 4), np.float32))
    assert choose_answers(Stage(manifest, LABELS, ()), scores, np.zeros((4, 4), np.float32)) == wanted


def test_trees_fill_the_labels_that_are_no_pair_from_their_own_blend(tmp_path: Path) -> None:
    names = list(name_features(("one", "three"), ()))
    write_graph(
        tmp_path / "t.onnx", "features", ["p", len(names)], np.array(0.7), {"counts": COUNTS, "features": names}
    )
    stacker = Stacker("trees", "trees", ALL, ("one", "three"), UNUSED, 0.0, top=1, blend="theirs")
    trees = StackerSession(stacker, tmp_path / "t.onnx", LABELS)
    manifest = change(make_manifest((stacker,), {"c": {"trees": 1.0}, "t": {"trees": 1.0}}), blends={"theirs": THEIRS})
    assert list_used_blends(manifest) == {"theirs": {"c", "t"}}
    scores, wanted = draw_scores(6), np.empty((6, 5), np.float32)
    wanted[:, [0, 2]], wanted[:, [1, 3, 4]] = scores["two"], scores["three"]
    one, three = scores["one"].astype(np.float32), np.full((6, 5), np.nan, np.float32)
    three[:, [1, 3, 4]] = scores["three"]
    for member in (one, np.where(np.isnan(three), one, three)):  # a missing score is the mean of the other members
        wanted[np.arange(6), member.argmax(axis=1)] = 0.7
    blends = {name: blend(scores, manifest, LABELS, name) for name in (BLEND, "theirs")}
    found = mix_scores(scores, blends, np.zeros((6, 4), np.float32), manifest, LABELS, [trees])
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def make_model_of_features(name: str, outputs: int) -> Model:
    return dataclasses.replace(make_model(name, "features"), outputs=outputs, activation="identity")


def write_reader(path: Path, feature: int, width: int, **notes: object) -> None:
    """Write trees whose probability of a pair is one of its features."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["features", "place"], ["out"], axis=1)],
        "stacker",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["pairs", width])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(feature, np.int64), "place")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {key: json.dumps(note) for key, note in notes.items()})
    onnx.save(model, path)


def test_trees_read_the_outputs_of_members_for_features_and_the_blend_decides_where_they_are_missing(
    tmp_path: Path,
) -> None:
    names = list(name_features(("one",), [("eyes", 2), ("ears", 1)]))
    entry = FileEntry("trees.onnx", "0" * 64)
    stacker = Stacker("trees", "trees", ALL, ("one",), entry, 0.0, top=5, features=("eyes", "ears"))
    manifest = make_manifest((stacker,), {"c": {"trees": 1.0}, "t": {"trees": 1.0}})
    more = (make_model_of_features("ears", 1), make_model_of_features("eyes", 2))
    manifest = dataclasses.replace(manifest, models=(*manifest.models, *more))
    scores = draw_scores(8)
    scores |= {"eyes": np.linspace(0, 1, 16, dtype=np.float32).reshape(8, 2), "ears": np.ones((8, 1), np.float16)}
    scores["eyes"][2] = scores["ears"][5] = np.nan
    write_reader(tmp_path / "trees.onnx", names.index("eyes[1]"), len(names), counts=COUNTS, features=names)
    stage = open_stage(manifest, LABELS, tmp_path)
    found = choose_answers(stage, scores, np.zeros((8, 4), np.float32))
    blended = blend(scores, manifest, LABELS)
    for row in range(8):
        pairs = np.full(5, scores["eyes"][row, 1])  # every label is a pair
        wanted = decide_row(stage, blended[row], 0.4) if row in (2, 5) else decide_row(stage, pairs, 0.6)
        assert found[row] == wanted, row
    del scores["ears"]  # its model did not run at all
    wanted_all = [decide_row(stage, row, 0.4) for row in blended]
    assert choose_answers(stage, scores, np.zeros((8, 4), np.float32)) == wanted_all


def test_trees_that_were_fitted_to_another_number_of_features_are_refused(tmp_path: Path) -> None:
    names = list(name_features(("one",), [("eyes", 2)]))
    stacker = Stacker("trees", "trees", ALL, ("one",), UNUSED, 0.0, top=5, features=("eyes",))
    write_reader(tmp_path / "trees.onnx", 0, len(names), counts=COUNTS, features=names)
    StackerSession(stacker, tmp_path / "trees.onnx", LABELS, [("eyes", 2)])
    with pytest.raises(SessionError) as error:
        StackerSession(stacker, tmp_path / "trees.onnx", LABELS, [("eyes", 3)])
    assert str(error.value) == (
        f"stacker trees: trees.onnx: metadata `features` is not a list of {len(names) + 1} values; "
        "run `build_kernel.py ensemble` again"
    )
    with pytest.raises(SessionError, match="was fitted to features that differ from this kernel's"):
        StackerSession(stacker, tmp_path / "trees.onnx", LABELS, [("nose", 2)])


@pytest.mark.parametrize(("notes", "groups"), [({}, [0, 1, 0, 1, 1]), ({"groups": [1, 0, 1, 0, 0]}, [1, 0, 1, 0, 0])])
def test_trees_of_a_teammate_keep_the_group_indices_of_their_fitting(
    notes: dict[str, object], groups: list[int], tmp_path: Path
) -> None:
    names = list(name_features(("one",), ()))
    write_reader(tmp_path / "t.onnx", names.index("group"), len(names), counts=COUNTS, features=names, **notes)
    trees = StackerSession(Stacker("trees", "trees", ALL, ("one",), UNUSED, 0.0, top=5), tmp_path / "t.onnx", LABELS)
    zeros = np.zeros((2, 1, 5), np.float32)
    found = trees.score(Inputs(zeros, zeros[:, 0], np.zeros((2, 4), np.float32)))
    assert found.tolist() == [groups] * 2


@pytest.mark.parametrize("groups", [[0, 1, 0], "x", None, {}])
def test_broken_group_indices_are_refused(groups: object, tmp_path: Path) -> None:
    names = list(name_features(("one",), ()))
    write_reader(tmp_path / "t.onnx", 0, len(names), counts=COUNTS, features=names, groups=groups)
    with pytest.raises(SessionError) as error:
        StackerSession(Stacker("trees", "trees", ALL, ("one",), UNUSED, 0.0, top=5), tmp_path / "t.onnx", LABELS)
    assert str(error.value) == (
        "stacker trees: t.onnx: metadata `groups` is not a list of 5 values; run `build_kernel.py ensemble` again"
    )


def test_a_stacker_without_weight_in_the_mix_is_not_used(cnn: StackerSession, trees: StackerSession) -> None:
    both = (cnn.stacker, trees.stacker)
    assert list_used_stackers(make_manifest(both, {"c": {"cnn": 0.0, BLEND: 1.0}, "t": {"trees": 0.1}})) == [
        trees.stacker
    ]
    assert list_used_stackers(make_manifest(both, {})) == []


@pytest.mark.parametrize("counts", [None, "[5, 4,", "5", "{}", json.dumps([*COUNTS, 0])])
def test_trees_without_the_counts_of_their_labels_are_refused(counts: str | None, tmp_path: Path) -> None:
    names, path = list(name_features(("one", "three"), ())), tmp_path / "trees.onnx"
    write_graph(path, "features", ["pairs", len(names)], np.array(0.7), {"features": names})
    if counts is not None:
        model = onnx.load(path)
        model.metadata_props.add(key="counts", value=counts)
        onnx.save(model, path)
    with pytest.raises(SessionError) as error:
        StackerSession(Stacker("trees", "trees", ALL, ("one", "three"), UNUSED, 0.0, top=1), path, LABELS)
    assert str(error.value) == (
        "stacker trees: trees.onnx: metadata `counts` is not a list of 5 values; run `build_kernel.py ensemble` again"
    )


def test_models_and_stackers_without_a_weight_need_no_scores(cnn: StackerSession, trees: StackerSession) -> None:
    mix = {"c": {"cnn": 1.0, "trees": 0.0}, "t": {BLEND: 1.0}}
    manifest = make_manifest((cnn.stacker, trees.stacker), mix)
    weights = {"c": {"one": 1.0, "two": 3.0}, "t": {"one": 1.0, "three": 0.0}}
    manifest = dataclasses.replace(manifest, ensemble=dataclasses.replace(manifest.ensemble, weights=weights))
    scores = draw_scores(4)
    del scores["three"]
    blended = blend(scores, manifest, LABELS)
    np.testing.assert_array_equal(blended[:, [1, 3, 4]], scores["one"][:, [1, 3, 4]].astype(np.float32))
    mixed = mix_scores(scores, {BLEND: blended}, np.zeros((4, 4), np.float32), manifest, LABELS, [cnn])
    np.testing.assert_allclose(mixed[:, [0, 2]], [[0.9, 0.3]] * 4, rtol=1e-6)


@pytest.mark.parametrize(
    ("value", "score"),
    [(-0.002, None), (1.002, None), (np.nan, None), (np.inf, None), (-0.0005, 0.0), (1.0005, 1.0), (0.25, 0.25)],
)
def test_a_sum_over_trees_may_leave_the_range_of_a_probability_a_little(
    value: float, score: float | None, tmp_path: Path
) -> None:
    write_graph(tmp_path / "cnn.onnx", "scores", ["images", 2, 2], np.array([0.5, value]), {})
    stacker = StackerSession(Stacker("cnn", "cnn", "c", ("one", "two"), UNUSED, 0.0), tmp_path / "cnn.onnx", LABELS)
    inputs = Inputs(np.zeros((1, 2, 5), np.float32), np.zeros((1, 5), np.float32), np.zeros((1, 4), np.float32))
    if score is None:
        with pytest.raises(SessionError, match=r"^stacker cnn: its output is not a probability: NaN or outside"):
            stacker.score(inputs)
    else:
        np.testing.assert_array_equal(stacker.score(inputs), np.array([[0.5, score]], np.float32))


def test_a_stopped_stacker_raises(cnn: StackerSession) -> None:
    inputs = Inputs(np.zeros((1, 2, 5), np.float32), np.zeros((1, 5), np.float32), np.zeros((1, 4), np.float32))
    cnn.score(inputs)
    cnn.stop()
    with pytest.raises(SessionError, match=r"^stacker cnn fails on \(1, 2, 2\): "):
        cnn.score(inputs)
