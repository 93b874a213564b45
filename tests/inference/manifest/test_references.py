"""Entries of a model that do not suit one another, or the rest of the manifest."""

import dataclasses
import re
from typing import Any

import pytest

from inference.basics.errors import ManifestError
from inference.manifest.decision import Decision, GroupDecision
from inference.manifest.file import parse_manifest
from inference.manifest.model import FileEntry, Model, Resize, Tiles, list_members
from inference.manifest.records import Ensemble, LabelsEntry, Manifest, Stacker, remove_stackers
from inference.manifest.references import check_references
from inference.manifest.schema import parse_record
from inference.manifest.task import Form, Metric, Task

GROUPS = {"side": "side::", "kind": "kind::"}
NET = Model("net", "resnet18", "all", 64, (0.5,) * 3, (0.5,) * 3, "bilinear")
FACES = dataclasses.replace(NET, name="faces", group="features", outputs=1000, activation="softmax")
ONNX = FileEntry("trees.onnx", "0" * 64)
TREES = Stacker("trees", "trees", "all", ("net",), ONNX, 0.0, 3, ("faces",))
CORNERS = dataclasses.replace(NET, views=("identity", "top_left"), resize=Resize("crop", 0.875))


def make_manifest(*models: Model, exchanged: Any = None, **ensemble: Any) -> Manifest:
    own = {group: {model.name: 1.0 for model in models if model.group in ("all", group)} for group in GROUPS}
    rules = {group: GroupDecision(0.2, 0, 3) for group in GROUPS}
    labels = LabelsEntry("labels.csv", "0" * 64, GROUPS, exchanged or {})
    return Manifest(labels, models, Ensemble(own, **ensemble), Decision(rules, {"side": (1,), "kind": ()}))


@pytest.mark.parametrize(
    "manifest",
    [
        make_manifest(dataclasses.replace(NET, image_size=(1520, 912), views=("identity", "vflip", "scale_125+hflip"))),
        make_manifest(CORNERS, exchanged={"hflip": ((1, 2),), "vflip": ((1, 3), (2, 4))}),
        make_manifest(dataclasses.replace(NET, mean=(0.5,), std=(0.2,), merge="geometric")),
        make_manifest(NET, FACES, stackers=(TREES,), mix={"side": {"trees": 1.0}}),
        make_manifest(
            *(dataclasses.replace(NET, name=f"n{fold}", member="net", fold=fold) for fold in range(3)),
            stackers=(dataclasses.replace(TREES, features=()),),
        ),
        make_manifest(
            NET,
            blends={"theirs": {"side": {"net": 1.0}, "kind": {}}},
            stackers=(dataclasses.replace(TREES, features=(), blend="theirs"),),
            mix={"kind": {"theirs": 0.5, "trees": 0.5}},
        ),
    ],
)
def test_networks_of_many_kinds_are_accepted(manifest: Manifest) -> None:
    check_references(manifest)
    assert parse_manifest(as_json(manifest)) == manifest
    assert not remove_stackers(manifest).ensemble.blends


def as_json(manifest: Manifest) -> Any:
    """Convert to what json.loads would return: lists in place of tuples."""

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: convert(item) for name, item in value.items()}
        return [convert(item) for item in value] if isinstance(value, (list, tuple)) else value

    return convert(dataclasses.asdict(manifest))


def change(**fields: Any) -> Manifest:
    return make_manifest(dataclasses.replace(NET, **fields))


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (
            change(group="sides"),
            """`models[0].group`: found "sides"; wanted 'all', 'features' or a group of `labels.groups`: side, kind""",
        ),
        (change(group="features"), "`models[0].outputs`: found 0; wanted the number of outputs"),
        (change(outputs=3), "`models[0].outputs`: found 3; wanted 0: one output per label of the group"),
        (change(std=(0.5,)), "`models[0].std`: found [0.5]; wanted 3 numbers, as `mean` has"),
        (
            change(views=("identity", "top_left")),
            "`models[0].views`: found top_left; wanted `resize.percentage` below 1, so that the resized image is "
            "larger than the network's input and has corners",
        ),
        (
            change(image_size=(64, 96), views=("rot90",)),
            "`models[0].views`: found rot90; wanted a square `image_size`, not 64x96",
        ),
        (
            change(image_size=4096, views=("scale_300",)),
            "`models[0].views`: scale_300 resizes images to 12288x12288; wanted at most 64 megapixels; "
            "raise `resize.percentage` or lower the scale",
        ),
        (
            make_manifest(dataclasses.replace(NET, views=("identity", "transpose")), exchanged={"hflip": ((1, 2),)}),
            "`models[0].views`: found transpose; wanted a view that does not turn left into top, because "
            "`labels.exchanged` has labels that depend on the side",
        ),
        (
            make_manifest(NET, dataclasses.replace(NET, name="other", member="net", group="kind", fold=1)),
            "`models`: net, other are folds of the member net but cover all and kind; wanted the same; "
            "give one another `member`",
        ),
        (
            make_manifest(NET, dataclasses.replace(NET, name="b", member="net", architecture="vgg11", fold=1)),
            "`models`: net, b are folds of the member net but are resnet18 and vgg11; wanted the same; "
            "give one another `member`",
        ),
        (
            make_manifest(NET, dataclasses.replace(NET, name="b", member="net", image_size=(64, 96), fold=1)),
            "`models`: net, b are folds of the member net but see 64x64 and 64x96; wanted the same; "
            "give one another `member`",
        ),
        (
            make_manifest(NET, dataclasses.replace(NET, name="b", member="net")),
            "`models`: net and b of the member net are both without a fold; give one another `member` or `fold`",
        ),
        (
            make_manifest(NET, FACES, stackers=(dataclasses.replace(TREES, members=("faces",)),)),
            "`ensemble.stackers[0].members[0]`: no member 'faces' with scores in `models`; "
            "run `build_kernel.py ensemble` again",
        ),
        (
            make_manifest(NET, stackers=(TREES,)),
            "`ensemble.stackers[0].features[0]`: no member 'faces' of group 'features' in `models`; "
            "run `build_kernel.py ensemble` again",
        ),
        (
            make_manifest(NET, stackers=(dataclasses.replace(TREES, features=(), blend="ours"),)),
            '`ensemble.stackers[0].blend`: found "ours"; wanted one of: blend',
        ),
        (
            make_manifest(NET, blends={"trees": {"side": {}, "kind": {}}}, stackers=(TREES,)),
            "`ensemble.stackers[0].name`: 'trees' is also the name of another part; rename one",
        ),
        (
            make_manifest(NET, blends={"ours": {"side": {"net": 1.0}}}),
            "`ensemble.blends.ours.kind`: missing; every group of `labels.groups` needs one",
        ),
        (
            make_manifest(NET, FACES, blends={"ours": {"side": {"faces": 1.0}, "kind": {}}}),
            "`ensemble.blends.ours.side.faces`: this model covers 'features'; remove its weight",
        ),
    ],
)
def test_entries_that_do_not_suit_one_another_are_refused(manifest: Manifest, message: str) -> None:
    with pytest.raises(ManifestError, match=f"^{re.escape(message)}$"):
        check_references(manifest)


def test_a_geometric_mean_wants_probabilities() -> None:
    task = Task(type="regression", submission=Form("wide", "number"), metric=Metric("rmse"))
    decision = Decision({}, {}, "number", prior_scores=(0.0,))
    labels = LabelsEntry("labels.csv", "0" * 64, {"labels": ""})
    for model, key in (
        (dataclasses.replace(NET, merge="geometric"), "merge"),
        (dataclasses.replace(NET, tiles=Tiles(merge="geometric")), "tiles.merge"),
    ):
        manifest = Manifest(labels, (model,), Ensemble({"labels": {"net": 1.0}}), decision, task)
        wanted = (
            f"`models[0].{key}`: found \"geometric\"; wanted 'mean' or 'maximum': the scores are numbers, not probab"
        )
        with pytest.raises(ManifestError, match=f"^{re.escape(wanted)}ilities$"):
            check_references(manifest)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("image_size", "64", "the side of a square or [height, width], whole numbers from 8 to 4096"),
        ("image_size", [64], "the side of a square or [height, width], whole numbers from 8 to 4096"),
        ("image_size", [64, 96, 3], "the side of a square or [height, width], whole numbers from 8 to 4096"),
        ("mean", [0.5, 0.5], "three numbers for RGB or one for grey"),
        ("views", [], "at least one view, each once"),
        ("merge", "median", "'mean' or 'geometric' or 'maximum'"),
        ("layout", "hwc", "'nchw' or 'nhwc'"),
        ("member", "a b", "a file name of letters, digits, '.', '_' and '-'"),
    ],
)
def test_a_value_of_another_kind_is_refused(key: str, value: object, message: str) -> None:
    document = {**as_json(make_manifest(NET))["models"][0], key: value}
    with pytest.raises(ManifestError, match=f"^{re.escape(f'`{key}`: found ')}.*{re.escape(f'; wanted {message}')}$"):
        parse_record(Model, document)


def test_a_view_that_does_not_exist_is_named_with_those_that_do() -> None:
    document = {**as_json(make_manifest(NET))["models"][0], "views": ["identity", "flip"]}
    with pytest.raises(ManifestError, match=r"^`views\[1\]`: found \"flip\"; wanted one of identity, hflip, vflip"):
        parse_record(Model, document)


def test_members_are_declared_and_not_read_from_names() -> None:
    alike = [dataclasses.replace(NET, name=f"a_f{fold}", fold=fold) for fold in range(2)]
    assert list(list_members(alike)) == ["a_f0", "a_f1"]
    declared = [dataclasses.replace(model, member="a") for model in alike]
    assert {name: len(models) for name, models in list_members(declared).items()} == {"a": 2}


def test_a_size_reads_back_as_it_was_written() -> None:
    for size, pair in ((64, (64, 64)), ([1520, 912], (1520, 912))):
        model = parse_record(Model, {**as_json(make_manifest(NET))["models"][0], "image_size": size})
        assert model.size == pair
