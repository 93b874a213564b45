import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image

from inference.images.read import read_image
from inference.manifest.file import read_manifest
from inference.manifest.labels import read_labels
from training.__main__ import main
from zoo.networks import open_network
from zoo.tables.out_of_fold import pool_predictions

RECIPE = 'architecture = "test_resnet"\nimage_size = 32\nfolds = 2\nepochs = 1\nbatch_size = 16\ngroup = "{}"\n'


@pytest.fixture(scope="module")
def zoo(museum: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo with two folds of a culture network and two of a network for all labels."""
    folder = tmp_path_factory.mktemp("oof") / "zoo"
    for group in ("culture", "all"):
        recipe = folder.parent / f"{group}.toml"
        recipe.write_text(RECIPE.format(group))
        command = ["fit", str(recipe), "--data", str(museum), "--out", str(folder), "--workers", "0"]
        assert main(command) == 0
    return folder


@pytest.fixture
def own_zoo(zoo: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(zoo, tmp_path / "zoo"))


def run_oof(museum: Path, zoo: Path, *options: str) -> int:
    command = ["oof", "--manifest", str(zoo / "weights_manifest.json"), "--data", str(museum), "--workers", "0"]
    return main([*command, *options])


def test_repeated_predictions_equal_those_of_the_training(museum: Path, zoo: Path, own_zoo: Path) -> None:
    for path in own_zoo.glob("*.oof.*"):
        path.unlink()
    assert run_oof(museum, own_zoo) == 0
    for path in zoo.glob("*.oof.ids.txt"):
        assert (own_zoo / path.name).read_text() == path.read_text()
    for path in zoo.glob("*.oof.npy"):
        np.testing.assert_allclose(np.load(own_zoo / path.name), np.load(path), rtol=0, atol=1e-3)
    # They are declared with their hashes, so the next reader accepts them.
    manifest = read_manifest(own_zoo / "weights_manifest.json")
    labels = read_labels(own_zoo / "labels.csv", manifest.labels.groups)
    ids = [line.split(",")[0] for line in (museum / "train.csv").read_text().splitlines()[1:]]
    assert len(pool_predictions(manifest, own_zoo, labels, ids)[0]) == 60


def test_jpegs_are_reduced_if_the_manifest_allows_it(museum: Path, own_zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "train").mkdir(parents=True)
    for path in museum.glob("*.csv"):
        shutil.copy(path, tmp_path / "data")
    for path in (museum / "train").iterdir():
        with Image.open(path) as drawn:
            drawn.convert("RGB").resize((160, 200)).save(tmp_path / "data" / "train" / f"{path.stem}.jpg", quality=90)
    path, found = own_zoo / "weights_manifest.json", []
    for factor in (None, 1, 1000):
        document = json.loads(path.read_text())
        document["runtime"]["draft"] = factor
        path.write_text(json.dumps(document))
        assert run_oof(tmp_path / "data", own_zoo, "all_f0") == 0
        found.append(np.load(own_zoo / "all_f0.oof.npy"))
    assert np.array_equal(found[0], found[2]) and not np.array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=0.02)


def test_predictions_use_the_views_of_the_manifest(museum: Path, zoo: Path, own_zoo: Path) -> None:
    document = json.loads((own_zoo / "weights_manifest.json").read_text())
    document["models"][0]["views"] = ["identity"]
    (own_zoo / "weights_manifest.json").write_text(json.dumps(document))
    assert run_oof(museum, own_zoo, "culture_f0") == 0
    assert not np.array_equal(np.load(own_zoo / "culture_f0.oof.npy"), np.load(zoo / "culture_f0.oof.npy"))
    assert (own_zoo / "culture_f1.oof.npy").read_bytes() == (zoo / "culture_f1.oof.npy").read_bytes()


@pytest.mark.parametrize("merge", ["mean", "maximum"])
def test_long_images_are_predicted_by_the_tiles_of_the_manifest(
    merge: str, museum: Path, zoo: Path, own_zoo: Path
) -> None:
    document = json.loads((own_zoo / "weights_manifest.json").read_text())
    document["models"][0]["tiles"] = {"aspect": 1.4, "most": 3, "merge": merge}
    (own_zoo / "weights_manifest.json").write_text(json.dumps(document))
    assert run_oof(museum, own_zoo, "culture_f0") == 0
    made, whole = np.load(own_zoo / "culture_f0.oof.npy"), np.load(zoo / "culture_f0.oof.npy")
    model = read_manifest(own_zoo / "weights_manifest.json").models[0]
    network = open_network(model, own_zoo, 3).module.eval()
    timms = timm.data.create_transform(
        32, interpolation=model.interpolation, mean=model.mean, std=model.std, crop_pct=1.0, crop_mode="squash"
    )
    long = 0
    for row, name in enumerate((own_zoo / "culture_f0.oof.ids.txt").read_text().split()):
        image = read_image(museum / "train" / f"{name}.png")
        if image.size != (60, 40):
            np.testing.assert_allclose(made[row], whole[row], rtol=0, atol=1e-3)
            continue
        long += 1
        tiles = torch.stack([timms(image.crop((left, 0, left + 40, 40))) for left in (0, 20)])
        with torch.inference_mode():
            views = [network(shown).sigmoid().numpy() for shown in (tiles, tiles.flip(3))]
        merged = [view.mean(axis=0) if merge == "mean" else view.max(axis=0) for view in views]
        np.testing.assert_allclose(made[row], (merged[0] + merged[1]) / 2, rtol=0, atol=1e-3)
    assert long > 3 and not np.array_equal(made, whole)


def test_models_to_predict_must_be_complete(museum: Path, own_zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = own_zoo / "weights_manifest.json"
    assert run_oof(museum, own_zoo, "culture_f2") == 1
    message = f"{manifest}: no model 'culture_f2'; did you mean culture_f1 or culture_f0 or culture?"
    assert capsys.readouterr().err == f"error: {message}\n"
    document = json.loads(manifest.read_text())
    document["models"][0]["fold"] = None
    manifest.write_text(json.dumps(document))
    assert run_oof(museum, own_zoo) == 1
    assert capsys.readouterr().err == (
        f"error: {manifest}: model culture_f0: `fold`: missing; add the fold that it held out\n"
    )
    document["models"][0] |= {"fold": 0, "checkpoint": None}
    manifest.write_text(json.dumps(document))
    assert run_oof(museum, own_zoo, "culture_f0") == 1
    assert "model culture_f0: the manifest names no checkpoint" in capsys.readouterr().err


def test_pooled_scores_are_the_mean_over_networks_that_held_out_the_image(museum: Path, zoo: Path) -> None:
    manifest = read_manifest(zoo / "weights_manifest.json")
    labels = read_labels(zoo / "labels.csv", manifest.labels.groups)
    ids = [line.split(",")[0] for line in (museum / "train.csv").read_text().splitlines()[1:]]
    rows, scores = pool_predictions(manifest, zoo, labels, ids)
    assert rows.tolist() == list(range(60))
    for row in (0, 17, 59):
        own = {}
        for name in ("culture", "all"):
            for fold in (0, 1):
                known = (zoo / f"{name}_f{fold}.oof.ids.txt").read_text().split()
                if ids[row] in known:
                    own[name] = np.load(zoo / f"{name}_f{fold}.oof.npy")[known.index(ids[row])].astype(np.float64)
        expected = np.concatenate([(own["culture"] + own["all"][:3]) / 2, own["all"][3:]])
        np.testing.assert_allclose(scores[row], expected, rtol=0, atol=1e-6)
    rows, scores = pool_predictions(
        manifest, zoo, labels, ids, [next(model for model in manifest.models if model.name == "culture_f1")]
    )
    assert [ids[row] for row in rows] == (zoo / "culture_f1.oof.ids.txt").read_text().split()
    assert (scores[:, 3:] == 0).all() and (scores[:, :3] > 0).all()
