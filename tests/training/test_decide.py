import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.metrics import fbeta_score

from inference.decide import decide
from inference.labels import read_labels
from inference.manifest import read_manifest
from training.__main__ import main

if TYPE_CHECKING:
    from conftest import Zoo


def run_decide(zoo: "Zoo") -> int:
    return main(["decide", "--train", str(zoo.train), "--manifest", str(zoo.manifest)])


def read_truth(train: Path) -> dict[str, list[bool]]:
    rows = [line.split(",") for line in train.read_text().split("\n")[1:] if line]
    return {image: [str(label) in cell.split() for label in range(7)] for image, cell in rows}


def test_only_the_groups_of_the_decision_change(make_zoo: "Callable[[], Zoo]") -> None:
    zoo = make_zoo()
    before = json.loads(zoo.manifest.read_text())
    assert run_decide(zoo) == 0
    after = json.loads(zoo.manifest.read_text())
    assert after["decision"]["groups"] != before["decision"]["groups"]
    assert after["decision"]["prior"] == before["decision"]["prior"]
    assert after["models"][0]["out_of_fold"] == before["models"][0]["out_of_fold"]
    assert after["ensemble"] == before["ensemble"]


def test_the_printed_f2_is_scikit_learns_of_the_kernels_decision_on_the_common_images(
    make_zoo: "Callable[[], Zoo]", capsys: pytest.CaptureFixture[str]
) -> None:
    zoo = make_zoo()
    assert run_decide(zoo) == 0
    truth = read_truth(zoo.train)
    scores = {
        name: dict(
            zip(
                (zoo.folder / f"{name}.oof.ids.txt").read_text().split(),
                np.load(zoo.folder / f"{name}.oof.npy").astype(np.float32),
                strict=True,
            )
        )
        for name in ("culture", "tag")
    }
    common = [image for image in truth if image in scores["culture"] and image in scores["tag"]]
    blended = np.stack([np.concatenate([scores["culture"][image], scores["tag"][image]]) for image in common])
    manifest = read_manifest(zoo.manifest)
    taken = decide(blended, read_labels(zoo.folder / "labels.csv", manifest.labels.groups), manifest.decision)
    true = np.array([truth[image] for image in common])
    expected = fbeta_score(true, taken, beta=2, average="samples", zero_division=0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "F2 on 20 images, fitted to the same images:"
    assert [re.split(r"\s{2,}", line.strip())[0] for line in lines[1:4]] == [
        "one threshold for all groups",
        "a threshold for each group",
        "and numbers of labels",
    ]
    assert lines[3].split()[-1] == f"{expected:.4f}"
    culture = manifest.decision.groups["culture"]
    assert lines[4] == (f"culture: threshold {culture.threshold:g}, {culture.minimum} to {culture.maximum} labels")


def test_a_model_of_weight_0_needs_no_predictions(make_zoo: "Callable[[], Zoo]") -> None:
    zoo = make_zoo()
    document = json.loads(zoo.manifest.read_text())
    spare = {**document["models"][0], "name": "spare", "out_of_fold": None}
    document["models"].append(spare)
    document["ensemble"]["weights"]["culture"]["spare"] = 0.0
    zoo.manifest.write_text(json.dumps(document))
    assert run_decide(zoo) == 0


def drop_entry(zoo: "Zoo") -> str:
    document = json.loads(zoo.manifest.read_text())
    document["models"][1]["out_of_fold"] = None
    zoo.manifest.write_text(json.dumps(document))
    return "model tag: `models[1].out_of_fold`: missing; add the model with --oof, or give it the weight 0"


def change_file(zoo: "Zoo") -> str:
    path = zoo.folder / "tag.oof.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    return "weights_manifest.json: `models[1].out_of_fold.scores.sha256`: "


def put_nan(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    scores = np.load(zoo.folder / "tag.oof.npy")
    scores[3, 1] = np.nan
    zoo.replace_scores("tag", scores, ids)
    return f"model tag: {zoo.folder}/tag.oof.npy: image {ids[3]} has NaN, wanted 0 to 1\n"


def put_logits(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    zoo.replace_scores("tag", np.full((40, 4), -2.5, np.float16), ids)
    return f"model tag: {zoo.folder}/tag.oof.npy: image {ids[0]} has -2.5 to -2.5, wanted 0 to 1\n"


def drop_id(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    zoo.replace_scores("tag", np.load(zoo.folder / "tag.oof.npy"), ids[1:])
    return (
        f"model tag: {zoo.folder}/tag.oof.npy: found float16 (40, 4), wanted float16 (39, 4): "
        "the images of tag.oof.ids.txt, the labels of 'tag'\n"
    )


def double_id(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    zoo.replace_scores("tag", np.load(zoo.folder / "tag.oof.npy"), [ids[0], ids[0], *ids[2:]])
    return f"model tag: {zoo.folder}/tag.oof.ids.txt: image {ids[0]} is given twice; ids must differ\n"


def rename_image(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    zoo.replace_scores("tag", np.load(zoo.folder / "tag.oof.npy"), ["elsewhere", *ids[1:]])
    return f"model tag: {zoo.folder}/tag.oof.npy: image elsewhere is not in train.csv; is it the right --train?\n"


def part_folds(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    apart = sorted(set(read_truth(zoo.train)) - set((zoo.folder / "culture.oof.ids.txt").read_text().split()))
    zoo.replace_scores("tag", np.load(zoo.folder / "tag.oof.npy")[: len(apart)], apart)
    assert len(ids) > len(apart) > 0
    return (
        "no image was held out by models of every group, so 'culture' has no prediction beside the others; "
        "all models of a blend must share a fold (same folds file, seed and --limit)\n"
    )


def leave_one(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    shared = next(image for image in (zoo.folder / "culture.oof.ids.txt").read_text().split() if image in ids)
    zoo.replace_scores("tag", np.load(zoo.folder / "tag.oof.npy")[:1], [shared])
    return f"{zoo.manifest}: its models held out one common image; wanted thousands, and 2 at least\n"


@pytest.mark.parametrize(
    "spoil", [drop_entry, change_file, put_nan, put_logits, drop_id, double_id, rename_image, part_folds, leave_one]
)
def test_predictions_that_cannot_be_used_are_told_by_model_and_file(
    spoil: "Callable[[Zoo], str]", make_zoo: "Callable[[], Zoo]", capsys: pytest.CaptureFixture[str]
) -> None:
    zoo = make_zoo()
    message = spoil(zoo)
    before = zoo.manifest.read_bytes()
    assert run_decide(zoo) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: {message}")
    assert told.count("\n") == 1
    assert zoo.manifest.read_bytes() == before


def test_no_manifest_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weights_manifest.json"
    assert main(["decide", "--train", "train.csv", "--manifest", str(path)]) == 1
    assert capsys.readouterr().err == (
        f"error: {path}: no such file; name the manifest, or start one with `build_kernel.py add`\n"
    )
