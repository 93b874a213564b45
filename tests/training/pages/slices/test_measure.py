import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import precision_score, recall_score

from inference.basics.errors import ManifestError, TrainingError
from inference.images.read import read_image
from inference.manifest.labels import Labels
from inference.manifest.task import Task
from tests.training.by_hand import score, take_by_hand
from training.pages.slices.figures import Judged
from training.pages.slices.labels import slice_frequencies
from training.pages.slices.measure import print_slices
from training.pages.slices.shapes import measure_sizes, read_size, slice_shapes
from zoo.metrics.scoring import find_scoring

if TYPE_CHECKING:
    from conftest import Zoo

LABELS = Labels(tuple(range(7)), tuple("abcdefg"), {"culture": (0, 1, 2), "tag": (3, 4, 5, 6)})


def read_truth(zoo: "Zoo") -> tuple[list[str], np.ndarray]:
    rows = [line.split(",") for line in zoo.train.read_text().split("\n")[1:] if line]
    return [image for image, _ in rows], np.array(
        [[str(label) in cell.split() for label in range(7)] for _, cell in rows]
    )


def read_scores(zoo: "Zoo", name: str, ids: list[str]) -> np.ndarray:
    """Read a model's scores of these images."""
    rows = (zoo.folder / f"{name}.oof.ids.txt").read_text().split()
    return np.load(zoo.folder / f"{name}.oof.npy")[[rows.index(image) for image in ids]].astype(np.float32)


def score_group(scores: np.ndarray, truth: np.ndarray, group: str) -> float:
    """Return scikit-learn's F2 of one group; `scores`: (images, labels of the group)."""
    truth = truth[:, LABELS.columns(group)]
    kept = truth.any(axis=1)
    size = truth.shape[1]
    labels = Labels(tuple(range(size)), tuple("abcd"[:size]), {group: tuple(range(size))})
    return score(take_by_hand(scores[kept], truth[kept], labels), truth[kept])


def run_slices(zoo: "Zoo", images: Path, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """Run the command, and return the cells of each printed line."""
    print_slices(zoo.train, images, zoo.manifest)
    return [re.split(r"\s{2,}", line) for line in capsys.readouterr().out.splitlines()]


def change_models(zoo: "Zoo", change: Callable[[dict], None]) -> None:
    document = json.loads(zoo.manifest.read_text())
    change(document)
    zoo.manifest.write_text(json.dumps(document))


def test_the_figures_of_models_and_blend_match_scikit_learn(
    make_zoo: "Callable[[], Zoo]", museum: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo = make_zoo()
    lines = run_slices(zoo, museum / "train", capsys)
    ids, truth = read_truth(zoo)
    # culture held out rows 20 to 60, tag rows 0 to 40.
    culture, tag = read_scores(zoo, "culture", ids[20:]), read_scores(zoo, "tag", ids[:40])
    blend, common = np.concatenate([culture[:20], tag[20:]], axis=1), truth[20:40]
    figures = [
        score(take_by_hand(blend, common, LABELS), common),
        score_group(culture[:20], common, "culture"),
        score_group(tag[20:], common, "tag"),
    ]
    assert lines[4:9] == [
        ["model", "group", "px", "images", "all", "culture", "tag"],
        ["culture", "culture", "32", "40*", "-", f"{score_group(culture, truth[20:], 'culture'):.4f}", "-"],
        ["tag", "tag", "32", "40*", "-", "-", f"{score_group(tag, truth[:40], 'tag'):.4f}"],
        ["blend", "all", "20", *(f"{figure:.4f}" for figure in figures)],
        ["* on other images than the blend, so not comparable with it"],
    ]


def test_folds_of_one_recipe_are_one_row_over_all_their_images(
    make_zoo: "Callable[[], Zoo]", museum: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo = make_zoo()
    ids, truth = read_truth(zoo)
    scores = np.random.default_rng(0).random(truth.shape) * (0.5 + 0.5 * truth)

    def split(document: dict) -> None:
        models = document["models"]
        document["models"] = [
            {**model, "name": f"{model['name']}_f{fold}", "member": model["name"], "fold": fold}
            for model in models
            for fold in (0, 1)
        ]
        document["ensemble"]["weights"] = {group: {f"{group}_f0": 1.0, f"{group}_f1": 1.0} for group in LABELS.groups}

    change_models(zoo, split)
    for group, columns in LABELS.groups.items():
        for fold in (0, 1):
            part = scores[fold::2, columns].astype(np.float16)
            zoo.replace_scores(f"{group}_f{fold}", part, ids[fold::2])
    lines = run_slices(zoo, museum / "train", capsys)
    rounded = scores.astype(np.float16).astype(np.float32)
    expected = {
        group: f"{score_group(rounded[:, columns], truth, group):.4f}" for group, columns in LABELS.groups.items()
    }
    assert [line[:4] for line in lines[5:7]] == [["culture", "culture", "32", "60"], ["tag", "tag", "32", "60"]]
    assert (lines[5][5], lines[6][6]) == (expected["culture"], expected["tag"])
    assert lines[7] == [
        "blend",
        "all",
        "60",
        f"{score(take_by_hand(rounded, truth, LABELS), truth):.4f}",
        *expected.values(),
    ]
    assert lines[8] == [""]


def test_features_have_no_row_and_an_oblong_input_has_both_sides(
    make_zoo: "Callable[[], Zoo]", museum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo = make_zoo()

    def change(document: dict) -> None:
        document["models"][1]["image_size"] = [32, 48]
        document["models"].append({**document["models"][0], "name": "extra", "group": "features", "outputs": 5})

    change_models(zoo, change)
    print_slices(zoo.train, museum / "train", zoo.manifest, tmp_path / "slices.json")
    lines = [re.split(r"\s{2,}", line) for line in capsys.readouterr().out.splitlines()]
    assert [line[:3] for line in lines[5:7]] == [["culture", "culture", "32"], ["tag", "tag", "32x48"]]
    assert lines[7][0] == "blend"
    found = json.loads((tmp_path / "slices.json").read_text())["models"]
    assert [one["image_size"] for one in found] == [32, [32, 48], None]


def test_a_model_without_predictions_and_weight_has_dashes(
    make_zoo: "Callable[[], Zoo]", museum: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo = make_zoo()
    change_models(
        zoo, lambda document: document["models"].append({**document["models"][0], "name": "spare", "out_of_fold": None})
    )
    assert run_slices(zoo, museum / "train", capsys)[7] == ["spare", "culture", "32", "0*", "-", "-", "-"]


def test_the_figures_by_label_frequency_match_scikit_learn() -> None:
    dice = np.random.default_rng(3)
    truth, taken = dice.random((200, 9)) < 0.2, dice.random((200, 9)) < 0.3
    images = np.array([0, 19, 20, 99, 100, 999, 1000, 5000, 20])
    bins = {"below 20": [0, 1], "20 to below 100": [2, 3, 8], "100 to below 1000": [4, 5], "1000 and above": [6, 7]}
    found = slice_frequencies(taken, truth, images, Task())
    assert [one.label for one in found] == list(bins)
    for one, columns in zip(found, bins.values(), strict=True):
        true, given = truth[:, columns], taken[:, columns]
        shown = true.any(axis=1)
        assert (one.labels, one.images, one.true, one.taken) == (len(columns), shown.sum(), true.sum(), given.sum())
        assert one.recall == pytest.approx(recall_score(true, given, average="micro"))
        assert one.precision == pytest.approx(precision_score(true, given, average="micro"))
        assert one.figure == pytest.approx(score(given[shown], true[shown]))


def test_labels_without_true_or_predicted_pairs_have_no_figures() -> None:
    nothing = np.zeros((5, 2), bool)
    first = slice_frequencies(nothing, nothing, np.array([0, 0]), Task())[0]
    assert (first.labels, first.images, first.recall, first.precision, first.figure) == (2, 0, None, None, None)


def test_images_are_sliced_by_long_side_over_short_side() -> None:
    sizes = np.array([[100, 100], [149, 100], [100, 150], [199, 100], [200, 100], [100, 299], [300, 100], [0, 0]])
    scoring, kept = find_scoring(Task()), np.array([1, 2, 5, 6, 7])
    judged = {
        "all": Judged(scoring, np.arange(8), np.arange(8) / 10),
        "tag": Judged(scoring, kept, np.array([0.1, 0.2, 0.5, 0.6, 0.7])),
    }
    found = {one.shape: one for one in slice_shapes(sizes, judged)}
    assert {shape: one.images for shape, one in found.items()} == {
        "below 2": 4,
        "2 and above": 3,
        "2 and above, wide": 2,
        "2 and above, high": 1,
        "1 to below 1.5": 2,
        "1.5 to below 2": 2,
        "2 to below 3": 2,
        "3 and above": 1,
        "unknown": 1,
    }
    assert found["2 and above"].figures == {"all": pytest.approx(0.5), "tag": pytest.approx(0.55)}
    assert found["2 and above, wide"].figures == {"all": pytest.approx(0.5), "tag": pytest.approx(0.6)}
    assert found["1.5 to below 2"].figures["tag"] == pytest.approx(0.2)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_sizes_are_those_of_the_upright_image(suffix: str, tmp_path: Path) -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (40, 20)).save(tmp_path / f"{orientation}.{suffix}", exif=exif)
    paths = [tmp_path / f"{orientation}.{suffix}" for orientation in range(1, 9)]
    found = [read_size(path) for path in paths]
    assert found == [read_image(path).size for path in paths]
    assert found == [(40, 20)] * 4 + [(20, 40)] * 4


def test_sizes_need_only_headers_and_faults_are_listed(tmp_path: Path) -> None:
    Image.effect_noise((70, 90), 50).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:200])
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8")
    sizes, faults = measure_sizes(tmp_path, ["cut", "torn", "absent"])
    assert sizes.tolist() == [[70, 90], [0, 0], [0, 0]]
    assert faults == ["torn.jpg: unreadable header", f"absent: no such image in {tmp_path}"]


def test_the_tables_name_images_of_unknown_shape(
    make_zoo: "Callable[[], Zoo]", tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo = make_zoo()
    ids, _ = read_truth(zoo)
    (tmp_path / "images").mkdir()
    for place, image in enumerate(ids[20:38]):
        Image.new("RGB", (90, 20) if place < 5 else (20, 30)).save(tmp_path / "images" / f"{image}.png")
    lines = run_slices(zoo, tmp_path / "images", capsys)
    table = {line[0]: line[1:3] for line in lines}
    assert table["2 and above"] == table["3 and above"] == table["2 and above, wide"] == ["5", "25.0%"]
    assert table["below 2"] == table["1.5 to below 2"] == ["13", "65.0%"]
    assert table["unknown"] == ["2", "10.0%"]
    assert [f"unknown: {ids[38]}: no such image in {tmp_path}/images and 1 more"] in lines


def test_the_json_has_the_printed_figures(
    make_zoo: "Callable[[], Zoo]", museum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo = make_zoo()
    print_slices(zoo.train, museum / "train", zoo.manifest, tmp_path / "slices.json")
    lines = [re.split(r"\s{2,}", line) for line in capsys.readouterr().out.splitlines()]
    found = json.loads((tmp_path / "slices.json").read_text())
    assert list(found) == ["metric", "models", "shapes", "frequencies", "groups", "values", "confusions"]
    blend = found["models"][-1]
    assert (blend["model"], blend["images"], blend["image_size"]) == ("blend", 20, None)
    assert ["blend", "all", "20", *(f"{figure:.4f}" for figure in blend["figures"].values())] in lines
    for one in found["groups"] + found["frequencies"]:
        figures = ["-" if one[key] is None else f"{one[key]:.4f}" for key in ("recall", "precision", "figure")]
        assert [one["label"], *(str(one[key]) for key in ("labels", "images", "true", "taken")), *figures] in lines


def test_a_folder_without_images_is_an_error(make_zoo: "Callable[[], Zoo]", tmp_path: Path) -> None:
    zoo = make_zoo()
    (tmp_path / "empty").mkdir()
    ids, _ = read_truth(zoo)
    with pytest.raises(TrainingError) as caught:
        print_slices(zoo.train, tmp_path / "empty", zoo.manifest)
    assert str(caught.value) == (
        f"{tmp_path}/empty: holds none of the 20 images of train.csv; wanted files such as {ids[20]}.png"
    )


def test_the_error_about_a_group_without_a_model_names_it(make_zoo: "Callable[[], Zoo]", museum: Path) -> None:
    zoo = make_zoo()
    change_models(zoo, lambda document: document["ensemble"]["weights"].update(tag={}))
    with pytest.raises(ManifestError, match=re.escape("`ensemble.weights.tag`: no model with a weight above 0 covers")):
        print_slices(zoo.train, museum / "train", zoo.manifest)


def test_one_common_image_is_too_few(make_zoo: "Callable[[], Zoo]", museum: Path) -> None:
    zoo = make_zoo()
    ids, _ = read_truth(zoo)
    zoo.replace_scores("tag", np.full((1, 4), 0.5, np.float16), [ids[30]])
    with pytest.raises(TrainingError) as caught:
        print_slices(zoo.train, museum / "train", zoo.manifest)
    assert str(caught.value) == (
        f"{zoo.manifest}: found 1 image with out-of-fold predictions for every group; wanted thousands, at least 2"
    )
