import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import build_kernel

if TYPE_CHECKING:
    from conftest import Zoo


def run_fit(zoo: "Zoo", *options: str) -> int:
    """Fit the blend, its thresholds and its values, without stackers."""
    given = ["ensemble", "--train", str(zoo.train), "--manifest", str(zoo.manifest), "--folds", "2"]
    return build_kernel.main([*given, "--without", "cnn", "--without", "trees", *options])


def read_truth(train: Path) -> dict[str, list[bool]]:
    rows = [line.split(",") for line in train.read_text().split("\n")[1:] if line]
    return {image: [str(label) in cell.split() for label in range(7)] for image, cell in rows}


def test_the_fit_keeps_the_prior_and_the_models(make_zoo: "Callable[[], Zoo]") -> None:
    zoo = make_zoo()
    before = json.loads(zoo.manifest.read_text())
    assert run_fit(zoo) == 0
    after = json.loads(zoo.manifest.read_text())
    assert after["decision"]["groups"] != before["decision"]["groups"]
    assert after["decision"]["prior"] == before["decision"]["prior"]
    assert after["models"][0]["out_of_fold"] == before["models"][0]["out_of_fold"]
    assert after["ensemble"]["weights"] == {"culture": {"culture": 1.0}, "tag": {"tag": 1.0}}
    assert after["ensemble"]["stackers"] == []


def drop_entry(zoo: "Zoo") -> str:
    document = json.loads(zoo.manifest.read_text())
    document["models"][1]["out_of_fold"] = None
    zoo.manifest.write_text(json.dumps(document))
    return "model tag: `models[1].out_of_fold`: missing; add the model with --oof, or take it out of the manifest"


def change_file(zoo: "Zoo") -> str:
    path = zoo.folder / "tag.oof.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    return "weights_manifest.json: `models[1].out_of_fold.scores.sha256`: "


def put_nan(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    scores = np.load(zoo.folder / "tag.oof.npy")
    scores[3, 1] = np.nan
    zoo.replace_scores("tag", scores, ids)
    return f"model tag: {zoo.folder}/tag.oof.npy: image {ids[3]}: found NaN; wanted 0 to 1\n"


def put_logits(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    zoo.replace_scores("tag", np.full((40, 4), -2.5, np.float16), ids)
    return f"model tag: {zoo.folder}/tag.oof.npy: image {ids[0]}: found -2.5 to -2.5; wanted 0 to 1\n"


def drop_id(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    zoo.replace_scores("tag", np.load(zoo.folder / "tag.oof.npy"), ids[1:])
    return (
        f"model tag: {zoo.folder}/tag.oof.npy: found float16 (40, 4); wanted float16 (39, 4): "
        "the images of tag.oof.ids.txt, the labels of 'tag'\n"
    )


def double_id(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    zoo.replace_scores("tag", np.load(zoo.folder / "tag.oof.npy"), [ids[0], ids[0], *ids[2:]])
    return f"model tag: {zoo.folder}/tag.oof.ids.txt: found image {ids[0]} twice; wanted unique ids\n"


def rename_image(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    zoo.replace_scores("tag", np.load(zoo.folder / "tag.oof.npy"), ["elsewhere", *ids[1:]])
    return f"model tag: {zoo.folder}/tag.oof.npy: image elsewhere is missing in train.csv; check --train\n"


def part_folds(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    apart = sorted(set(read_truth(zoo.train)) - set((zoo.folder / "culture.oof.ids.txt").read_text().split()))
    zoo.replace_scores("tag", np.load(zoo.folder / "tag.oof.npy")[: len(apart)], apart)
    assert len(ids) > len(apart) > 0
    return f"{zoo.manifest}: no image was held out by all members (culture, tag); train all with the same folds\n"


def leave_few(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    culture = (zoo.folder / "culture.oof.ids.txt").read_text().split()
    shared = [image for image in culture if image in ids][:3]
    zoo.replace_scores("tag", np.load(zoo.folder / "tag.oof.npy")[:3], shared)
    return (
        f"{zoo.manifest}: found 3 images held out by all members; wanted thousands, and at least 8 for 2 outer folds\n"
    )


def share_an_image(zoo: "Zoo") -> str:
    document = json.loads(zoo.manifest.read_text())
    for model in document["models"]:
        if model["name"] == "tag":
            twin = {**model, "name": "tag_f1", "fold": 1}
            model |= {"name": "tag_f0", "fold": 0}
    document["models"].append(twin)
    document["ensemble"]["weights"]["tag"] = {"tag_f0": 1.0, "tag_f1": 1.0}
    zoo.manifest.write_text(json.dumps(document))
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    return (
        f"models tag_f0 and tag_f1: both held out image {ids[0]}; the folds of one recipe must not share an image, "
        "because one of them was trained on it\n"
    )


@pytest.mark.parametrize(
    "spoil",
    [
        drop_entry,
        change_file,
        put_nan,
        put_logits,
        drop_id,
        double_id,
        rename_image,
        part_folds,
        leave_few,
        share_an_image,
    ],
)
def test_the_message_about_unusable_predictions_names_the_model_and_file(
    spoil: "Callable[[Zoo], str]", make_zoo: "Callable[[], Zoo]", capsys: pytest.CaptureFixture[str]
) -> None:
    zoo = make_zoo()
    message = spoil(zoo)
    before = zoo.manifest.read_bytes()
    assert run_fit(zoo) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {message}")
    assert shown.count("\n") == 1
    assert zoo.manifest.read_bytes() == before


def test_a_missing_manifest_is_an_error_of_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weights_manifest.json"
    assert build_kernel.main(["ensemble", "--train", "train.csv", "--manifest", str(path)]) == 1
    assert capsys.readouterr().err == (
        f"error: {path}: no such file; name the manifest, or start one with `build_kernel.py add`\n"
    )
