import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference.basics.errors import ManifestError, VitrineError
from inference.basics.files import hash_file
from inference.manifest.bundle import read_bundle
from inference.manifest.file import MANIFEST_NAME, find_file, read_manifest, verify_files, write_manifest
from inference.manifest.labels import read_labels
from inference.manifest.model import OnnxEntry
from tests.conftest import Workshop

Document = dict[str, Any]


def change(document: Document, path: str, value: object) -> None:
    *parents, last = path.split(".")
    place: Any = document
    for name in parents:
        place = place[int(name)] if isinstance(place, list) else place[name]
    if value is ...:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value


def double_name(document: Document) -> None:
    document["models"][1]["name"] = document["models"][0]["name"]


def uncover(document: Document) -> None:
    document["ensemble"]["weights"]["tag"] = {"everything": 0.0, "tag": 0}


STACKER = {
    "name": "cnn_tag",
    "kind": "cnn",
    "group": "tag",
    "members": ["everything", "tag"],
    "onnx": {"file": "stacker_cnn_tag.onnx", "sha256": "0" * 64},
    "parity": 0.0,
}


def stack(**changes: object) -> Callable[[Document], None]:
    """Return a breakage that adds a stacker for tag, with `changes`, and `mix` to the ensemble."""

    def breakage(document: Document) -> None:
        mix = changes.pop("mix", {"tag": {"cnn_tag": 1.0}})
        stacker = STACKER | changes
        document["ensemble"] |= {"stackers": [stacker], "mix": mix}

    return breakage


def stack_twice(document: Document) -> None:
    document["ensemble"]["stackers"] = [STACKER, STACKER]


def calibrate(document: Document) -> None:
    document["decision"] |= {
        "rule": "expected_f",
        "calibration": {group: {"scores": [0.1, 0.2], "chances": [0.3]} for group in ("culture", "tag")},
    }


def join_groups(document: Document) -> None:
    document["models"][1] |= {"name": "mixed_f0", "fold": 0, "member": "mixed"}
    document["models"][2] |= {"name": "mixed_f1", "fold": 1, "member": "mixed"}
    document["ensemble"]["weights"] = {group: {"everything": 1.0} for group in ("culture", "tag")}


def put(path: str, value: object) -> Callable[[Document], None]:
    return lambda document: change(document, path, value)


SIDES = "the side of a square or [height, width], whole numbers from 8 to 4096"
VIEWS = (
    "one of identity, hflip, vflip, rot180, transpose, rot90, rot270, transverse; top_left, top_right, bottom_left, "
    "bottom_right or scale_101 to scale_400, also followed by + and one of the first, as in top_left+hflip"
)
BROKEN = [
    (put("models.0.image_sise", 3), "`models[0].image_sise`: unknown key; did you mean `models[0].image_size`?"),
    (
        put("qqq", 3),
        "`qqq`: unknown key; known keys: decision, ensemble, labels, models, runtime, schema_version, task",
    ),
    (put("models.0.image_size", "64"), f'`models[0].image_size`: found "64"; wanted {SIDES}'),
    (put("models.0.image_size", True), "`models[0].image_size`: found true; wanted a whole number"),
    (put("models.0.image_size", 0), f"`models[0].image_size`: found 0; wanted {SIDES}"),
    (put("models.0.image_size", ...), f"`models[0].image_size`: missing; wanted {SIDES}"),
    (put("models.0.std", [1, 0, 1]), "`models[0].std`: found [1, 0, 1]; wanted numbers above 0, one per channel"),
    (put("models.0.views", []), "`models[0].views`: found []; wanted at least one view, each once"),
    (put("models.0.views", ["flip"]), f'`models[0].views[0]`: found "flip"; wanted {VIEWS}'),
    (
        put("labels.file", "/etc/passwd"),
        '`labels.file`: found "/etc/passwd"; wanted a path inside the manifest\'s folder, with / and without ..',
    ),
    (
        put("labels.file", "../labels.csv"),
        '`labels.file`: found "../labels.csv"; wanted a path inside the manifest\'s folder, with / and without ..',
    ),
    (
        put("models.0.onnx.fp32.file", "a/b.onnx"),
        "`models[0].onnx.fp32.file`: found \"a/b.onnx\"; wanted a file name of letters, digits, '.', '_' and '-'",
    ),
    (
        put("labels.sha256", "abc"),
        '`labels.sha256`: found "abc"; wanted 64 hexadecimal digits (sha256sum prints them)',
    ),
    (double_name, "`models[1].name`: 'everything' is also the name of models[0]; rename one"),
    (
        put("models.0.group", "style"),
        "`models[0].group`: found \"style\"; wanted 'all', 'features' or a group of `labels.groups`: culture, tag",
    ),
    (put("decision.groups.tag", ...), "`decision.groups.tag`: missing; every group of `labels.groups` needs one"),
    (
        put("decision.groups.tag.maximum", 0),
        "`decision.groups.tag.maximum`: found 0; wanted at least 1 and at least `minimum`",
    ),
    (
        put("decision.groups.tag.threshold", 1.5),
        "`decision.groups.tag.threshold`: found 1.5; wanted a number from 0 to 1",
    ),
    (put("ensemble.weights.tag.nobody", 1), "`ensemble.weights.tag.nobody`: no model of that name in `models`"),
    (
        put("ensemble.weights.tag.culture", 1),
        "`ensemble.weights.tag.culture`: this model covers 'culture'; remove its weight",
    ),
    (put("ensemble.weights.tag.tag", -1), "`ensemble.weights.tag.tag`: found -1; wanted a number of at least 0"),
    (uncover, "`ensemble.weights.tag`: no model with a weight above 0 covers the group; add a model or a weight"),
    (
        put("models.0.onnx.fp8", {}),
        "`models[0].onnx.fp8`: found \"fp8\"; wanted 'fp32' or 'fp16' or 'int8'",
    ),
    (
        put("models.0.onnx.fp32.metric_loss", 2),
        "`models[0].onnx.fp32.metric_loss`: found 2; wanted a number from -1 to 1",
    ),
    (put("models.0.onnx.fp32.flips", -1), "`models[0].onnx.fp32.flips`: found -1; wanted a number of at least 0"),
    (put("runtime.metric_loss", -1), "`runtime.metric_loss`: found -1; wanted a number from 0 to 1"),
    (put("models.0.onnx", {}), "`models[0].onnx.fp32`: missing; export model everything, then pack"),
    (put("decision.prior", [0, 2]), "`decision.prior`: found [0, 2]; wanted an object"),
    (put("decision.prior.tag", [99]), "`decision.prior.tag`: found 99; wanted label ids of this group in labels.csv"),
    (put("decision.prior.tag", [1]), "`decision.prior.tag`: found 1; wanted label ids of this group in labels.csv"),
    (put("decision.prior.tag", [3, 2]), "`decision.prior.tag`: found [3, 2]; wanted ascending label ids, each once"),
    (put("decision.prior.tag", [2, 2]), "`decision.prior.tag`: found [2, 2]; wanted ascending label ids, each once"),
    (put("decision.prior.tag", ...), "`decision.prior.tag`: missing; every group of `labels.groups` needs one"),
    (put("decision.prior.style", [0]), "`decision.prior.style`: no such group in `labels.groups`: culture, tag"),
    (
        put("decision.prior", {"culture": [], "tag": []}),
        '`decision.prior`: found {"culture": [], "tag": []}; wanted at least one label id in all',
    ),
    (put("runtime.notebook_reserve", -1), "`runtime.notebook_reserve`: found -1; wanted seconds, from 0 to 100000"),
    (put("schema_version", 2), "`schema_version`: found 2; wanted 1"),
    (stack(name="blend"), "`ensemble.stackers[0].name`: found \"blend\"; wanted a name other than 'blend'"),
    (
        stack(kind="forest"),
        "`ensemble.stackers[0].kind`: found \"forest\"; wanted 'cnn' or 'trees'",
    ),
    (
        stack(group="style"),
        "`ensemble.stackers[0].group`: found \"style\"; wanted 'all' or a group of `labels.groups`: culture, tag",
    ),
    (
        stack(members=["everything", "nobody"]),
        "`ensemble.stackers[0].members[1]`: no member 'nobody' with scores in `models`; run `build_kernel.py ensemble` again",
    ),
    (stack(members=[]), "`ensemble.stackers[0].members`: found []; wanted at least one member"),
    (stack_twice, "`ensemble.stackers[1].name`: 'cnn_tag' is also the name of another part; rename one"),
    (
        stack(mix={"tag": {"trees": 1.0}}),
        "`ensemble.mix.tag.trees`: no stacker of that name in `ensemble.stackers`",
    ),
    (
        stack(mix={"culture": {"cnn_tag": 1.0}}),
        "`ensemble.mix.culture.cnn_tag`: this stacker scores 'tag'; remove its weight",
    ),
    (stack(mix={"style": {"blend": 1.0}}), "`ensemble.mix.style`: no such group in `labels.groups`: culture, tag"),
    (stack(mix={"tag": {"blend": 0.0}}), "`ensemble.mix.tag`: found only weights of 0; wanted one above 0"),
    (stack(), "`ensemble.stackers[0].onnx.file`: no file stacker_cnn_tag.onnx in {folder}"),
    (
        put("ensemble.values", {"everything": {"tiles": 0.1}}),
        f'`ensemble.values.everything.tiles`: found "tiles"; wanted {VIEWS}',
    ),
    (
        put("ensemble.values", {"nobody": {"hflip": 0.1}}),
        "`ensemble.values.nobody.hflip`: no model of that name and view in `models`",
    ),
    (
        put("decision.rule", "expected_f"),
        "`decision.calibration`: found no group; wanted every group of `labels.groups`",
    ),
    (calibrate, "`decision.calibration.culture`: found 2 scores and 1 probabilities; wanted equal numbers"),
    (
        put("decision.calibration", {"tag": {"scores": [0.2, 0.1], "chances": [0, 1]}}),
        "`decision.calibration.tag.scores`: found [0.2, 0.1]; wanted ascending scores, at least one",
    ),
    (
        put("decision.fallback", {"tag": {"threshold": 0.1, "minimum": 0, "maximum": 3}}),
        "`decision.fallback`: found tag; wanted every group of `labels.groups`",
    ),
    (
        join_groups,
        "`models`: mixed_f0, mixed_f1 are folds of the member mixed but cover culture and tag; wanted the same; give "
        "one another `member`",
    ),
    (put("schema_version", True), "`schema_version`: found true; wanted 1"),
    (
        put("models.0.architecture", "\ud800"),
        '`models[0].architecture`: found "\\ud800"; wanted text without lone surrogates, which UTF-8 cannot encode',
    ),
    (put("models.0.mean", [10**400, 0, 0]), f"`models[0].mean[0]`: found {10**400!s:.57}...; wanted a number"),
    (put("runtime.image_seconds", 0), "`runtime.image_seconds`: found 0; wanted seconds, from 0.001 to 3600"),
    (
        put("runtime.max_pixels", 10**9),
        "`runtime.max_pixels`: found 1000000000; wanted a whole number from 1 to 178956970",
    ),
    (put("runtime.draft", 0.99), "`runtime.draft`: found 0.99; wanted a number from 1 to 1000, or null"),
    (put("runtime.draft", 1001), "`runtime.draft`: found 1001; wanted a number from 1 to 1000, or null"),
    (put("runtime.draft", float("nan")), "`runtime.draft`: found NaN; wanted a number from 1 to 1000, or null"),
    (put("runtime.draft", True), "`runtime.draft`: found true; wanted a number"),
    (put("runtime.draft", "2"), '`runtime.draft`: found "2"; wanted a number'),
    (put("models.0.tiles", True), "`models[0].tiles`: found true; wanted an object"),
    (
        put("models.0.tiles", {"aspekt": 3}),
        "`models[0].tiles.aspekt`: unknown key; did you mean `models[0].tiles.aspect`?",
    ),
    (
        put("models.0.tiles", {"aspect": 1, "most": 8}),
        "`models[0].tiles.aspect`: found 1; wanted a number above 1, at most 1000",
    ),
    (put("models.0.tiles", {"most": 1}), "`models[0].tiles.most`: found 1; wanted a whole number from 2 to 32"),
    (put("models.0.tiles", {"most": 2.5}), "`models[0].tiles.most`: found 2.5; wanted a whole number"),
    (
        put("models.0.tiles", {"merge": "median"}),
        "`models[0].tiles.merge`: found \"median\"; wanted 'mean' or 'geometric' or 'maximum'",
    ),
    (put("models.0.mean", ["a", 0, 0]), '`models[0].mean[0]`: found "a"; wanted a number'),
]


@pytest.mark.parametrize(("breakage", "message"), BROKEN, ids=[message[:60] for _, message in BROKEN])
def test_a_broken_manifest_is_refused_by_key(
    breakage: Callable[[Document], None], message: str, own_workshop: Workshop
) -> None:
    path = own_workshop.dataset / MANIFEST_NAME
    document = json.loads(path.read_text())
    breakage(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ManifestError) as error:
        read_bundle(own_workshop.dataset)
    assert str(error.value) == f"weights_manifest.json: {message}".replace("{folder}", str(own_workshop.dataset))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON: Expecting property name enclosed in double quotes (line 1, column 2)"),
        ("[]", "`(the whole file)`: found []; wanted an object"),
        (
            "1" * 5000,
            "not JSON: Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits; use sys.set_int_max_str_digits() to increase the limit",
        ),
        ("[" * 100_000, "not a manifest: nested too deeply"),
        ('{"labels": 1, "labels": 2}', "`labels`: found twice in one object; keep one"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text(text)
    with pytest.raises(ManifestError) as error:
        read_manifest(tmp_path / MANIFEST_NAME)
    assert str(error.value) == f"weights_manifest.json: {message}"


def test_a_missing_manifest_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as error:
        read_manifest(tmp_path / "x.json")
    assert (
        str(error.value)
        == f"{tmp_path}/x.json: no such file; name the manifest, or start one with `build_kernel.py init`"
    )


def test_a_missing_file_is_named_with_its_key(own_workshop: Workshop) -> None:
    (own_workshop.dataset / "culture.onnx").unlink()
    with pytest.raises(ManifestError) as error:
        read_bundle(own_workshop.dataset)
    assert str(error.value) == (
        f"weights_manifest.json: `models[1].onnx.fp32.file`: no file culture.onnx in {own_workshop.dataset}"
    )


@pytest.mark.parametrize("name", ["labels.csv", "everything.onnx", "culture.onnx", "tag.onnx", "inference.pyz"])
def test_one_changed_byte_in_any_file_is_refused(name: str, own_workshop: Workshop) -> None:
    path = own_workshop.dataset / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ManifestError, match=rf"\.sha256`: {path}: found \w{{12}}…; wanted \w{{12}}…; restore the file, "
    ):
        read_bundle(own_workshop.dataset)


def test_a_link_to_a_file_outside_of_the_bundle_is_refused_even_with_the_right_hash(
    own_workshop: Workshop, tmp_path: Path
) -> None:
    path = own_workshop.dataset / "tag.onnx"
    path.rename(tmp_path / "elsewhere.onnx")
    path.symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(ManifestError) as error:
        read_bundle(own_workshop.dataset)
    assert str(error.value) == (
        f"weights_manifest.json: `models[2].onnx.fp32.file`: {path} links to a file outside of "
        f"{own_workshop.dataset}; copy the file there"
    )


def test_a_manifest_that_links_out_of_the_bundle_is_refused(own_workshop: Workshop, tmp_path: Path) -> None:
    path = own_workshop.dataset / MANIFEST_NAME
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ManifestError) as error:
        read_bundle(own_workshop.dataset)
    assert str(error.value) == (f"{path} links to a file outside of {own_workshop.dataset}; copy the file there")


@pytest.mark.parametrize(
    ("make", "reason"),
    [(os.mkfifo, "is a device or pipe; wanted a regular file"), (Path.mkdir, "cannot be read: Is a directory")],
    ids=["pipe", "folder"],
)
def test_a_pipe_or_a_folder_in_place_of_a_file_of_the_bundle_is_refused(
    make: Callable[[Path], None], reason: str, own_workshop: Workshop
) -> None:
    places = (("tag.onnx", "weights_manifest.json: `models[2].onnx.fp32.file`: "), (MANIFEST_NAME, ""))
    for name, place in places:
        path = own_workshop.dataset / name
        path.unlink()
        make(path)
        with pytest.raises(ManifestError) as error:
            read_bundle(own_workshop.dataset)
        assert str(error.value) == f"{place}{path}: {reason}"


def test_a_link_to_itself_in_a_bundle_is_refused(own_workshop: Workshop) -> None:
    path = own_workshop.dataset / "tag.onnx"
    path.unlink()
    path.symlink_to("tag.onnx")
    with pytest.raises(ManifestError) as error:
        read_bundle(own_workshop.dataset)
    assert str(error.value) == (
        f"weights_manifest.json: `models[2].onnx.fp32.file`: {path}: cannot be read: Too many levels of symbolic links"
    )


def test_a_link_inside_the_bundle_and_a_link_to_the_bundle_are_followed(own_workshop: Workshop, tmp_path: Path) -> None:
    path = own_workshop.dataset / "tag.onnx"
    path.rename(own_workshop.dataset / "itself.onnx")
    path.symlink_to("itself.onnx")
    (tmp_path / "mounted").symlink_to(own_workshop.dataset, target_is_directory=True)
    read_bundle(tmp_path / "mounted")


def test_a_manifest_is_unchanged_after_writing_and_reading(workshop: Workshop, tmp_path: Path) -> None:
    manifest = read_manifest(workshop.dataset / MANIFEST_NAME)
    write_manifest(manifest, tmp_path / MANIFEST_NAME)
    assert read_manifest(tmp_path / MANIFEST_NAME) == manifest
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_NAME]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "attribute_id,attribute_name\n0,culture::a\n",
            "group 'tag': found no label; wanted names starting with 'tag::'",
        ),
        ("attribute_id,attribute_name\n0,culture::a\n0,tag::b\n", "found attribute_id 0 twice; wanted unique ids"),
        ("attribute_id,attribute_name\nx,culture::a\n", "found attribute_id 'x'; wanted a whole number"),
        (
            "attribute_id,attribute_name\n0,a\n",
            "label 0 'a': found no group; wanted one of: culture ('culture::'), tag ('tag::')",
        ),
        ("attribute_id,name\n0,a\n", "no `attribute_name` column; found attribute_id, name"),
        ("", "found an empty file; wanted a header line with label_id, label_name"),
    ],
)
def test_broken_labels_are_named(rows: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(rows)
    with pytest.raises(VitrineError) as error:
        read_labels(path, {"culture": "culture::", "tag": "tag::"})
    assert str(error.value) == f"{path}: {message}"


def test_a_file_is_found_in_its_own_folder_or_in_that_of_its_dataset(tmp_path: Path) -> None:
    entry = OnnxEntry("a.onnx", "0" * 64, 17, 0.0, "0" * 64)
    assert find_file(entry, tmp_path) == tmp_path / "a.onnx"
    attached = dataclasses.replace(entry, dataset="bob/zoo")
    assert find_file(attached, tmp_path, {"bob/zoo": Path("elsewhere")}) == Path("elsewhere/a.onnx")
    with pytest.raises(ManifestError) as error:
        find_file(attached, tmp_path, {"bob/other": Path("elsewhere")})
    assert str(error.value) == (
        "weights_manifest.json: dataset bob/zoo is not attached, which has a.onnx; attach it with Add Input in the "
        "notebook, or name its folder with --attached bob/zoo=DIR"
    )


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda path: path.unlink(),
            "`k.file`: no file a.onnx in {folder}; dataset bob/zoo has changed",
        ),
        (
            lambda path: path.write_text("other"),
            "`k.sha256`: {folder}/a.onnx: found d9298a10d1b0…; wanted 2cf24dba5fb0…; dataset bob/zoo has changed; attach "
            "the version that was packed, or pack again",
        ),
        (
            lambda path: path.rename(path.parent.parent / "b.onnx") and path.symlink_to("../b.onnx"),
            "`k.file`: {folder}/a.onnx links to a file outside of {folder}; copy the file there; dataset bob/zoo has "
            "changed",
        ),
    ],
    ids=["missing", "changed", "linked"],
)
def test_a_file_of_an_attached_dataset_is_verified_there(
    break_it: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "zoo"
    folder.mkdir()
    path = folder / "a.onnx"
    path.write_text("hello")
    files = [("k", OnnxEntry("a.onnx", hash_file(path), 17, 0.0, "0" * 64, dataset="bob/zoo"))]
    verify_files(files, tmp_path, {"bob/zoo": folder})
    break_it(path)
    with pytest.raises(ManifestError) as error:
        verify_files(files, tmp_path, {"bob/zoo": folder})
    assert str(error.value) == f"weights_manifest.json: {message.format(folder=folder)}"
