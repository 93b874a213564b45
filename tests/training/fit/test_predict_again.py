import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from safetensors.torch import load_file

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
    manifest = read_manifest(own_zoo / "weights_manifest.json")
    model, labels = manifest.models[0], read_labels(own_zoo / "labels.csv", manifest.labels.groups)
    network = open_network(model, own_zoo, labels).module.eval()
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


OWN = """
from torch import nn

class Heads(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, width, 3, 2), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.heads = nn.ModuleDict({"tag": nn.Linear(width, 4), "culture": nn.Linear(width, 3)})

    def forward(self, image):
        features = self.body(image).flatten(1)
        return {group: head(features) for group, head in self.heads.items()}

def build(outputs, width):
    assert outputs == 7
    return Heads(width)
"""


def test_a_grey_oblong_network_of_ones_own_with_two_heads_goes_from_its_recipe_to_equal_predictions(
    museum: Path, tmp_path: Path
) -> None:
    (tmp_path / "nets.py").write_text(OWN)
    (tmp_path / "own.toml").write_text(
        'image_size = [24, 40]\nchannels = 1\nfolds = 2\nepochs = 2\nbatch_size = 16\nprecision = "fp32"\nema = 0.5\n'
        'views = ["identity", "vflip", "scale_125"]\nmerge = "geometric"\ncache = 30\n'
        '[factory]\nfile = "nets.py"\nfunction = "build"\narguments = {width = 6}\n'
    )
    home = tmp_path / "zoo"
    command = ["fit", str(tmp_path / "own.toml"), "--data", str(museum), "--out", str(home), "--fold", "1"]
    assert main([*command, "--workers", "0"]) == 0
    (model,) = read_manifest(home / "weights_manifest.json").models
    assert (model.name, model.member, model.fold, model.size) == ("own_f1", "own", 1, (24, 40))
    assert (model.views, model.merge, model.channels) == (("identity", "vflip", "scale_125"), "geometric", 1)
    assert model.factory is not None and (home / model.factory.file).read_text() == OWN
    assert (model.architecture, model.factory.arguments) == ("nets.py:build", {"width": 6})
    assert len(list((home / "cache").glob("30x50-*.npy"))) == 1

    written, ids = np.load(home / "own_f1.oof.npy"), (home / "own_f1.oof.ids.txt").read_text().split()
    space: dict[str, Any] = {}
    exec(OWN, space)
    network = space["build"](7, 6).eval()
    network.load_state_dict(load_file(home / "own_f1.safetensors"))
    for row, image in enumerate(ids):
        parts = []
        with Image.open(museum / "train" / f"{image}.png") as opened:
            for width, height, is_turned in ((40, 24, False), (40, 24, True), (50, 30, False)):
                shown = opened.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
                left, top = (width - 40) // 2, (height - 24) // 2
                shown = shown.crop((left, top, left + 40, top + 24)).convert("L")
                shown = shown.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if is_turned else shown
                pixels = (np.asarray(shown, np.float32) / 255 - model.mean[0]) / model.std[0]
                with torch.inference_mode():
                    heads = network(torch.from_numpy(pixels.astype(np.float32))[None, None])
                parts.append(torch.cat([heads["culture"], heads["tag"]], dim=1).sigmoid()[0].numpy())
        expected = np.exp(np.mean(np.log(parts), axis=0))
        np.testing.assert_allclose(written[row], expected, rtol=0, atol=1e-3)
    assert len(ids) == 30 and np.ptp(written.astype(np.float32), axis=0).max() > 0.01

    (home / "own_f1.oof.npy").unlink()
    assert run_oof(museum, home, "own") == 0
    np.testing.assert_allclose(np.load(home / "own_f1.oof.npy"), written, rtol=0, atol=1e-3)


def test_features_are_predicted_on_all_images_and_with_a_fold_on_its_own(
    museum: Path, zoo: Path, own_zoo: Path
) -> None:
    path = own_zoo / "weights_manifest.json"
    document = json.loads(path.read_text())
    model = document["models"][0] | {"name": "extra", "member": "extra", "group": "features", "outputs": 3}
    document["models"].append(model | {"fold": None, "out_of_fold": None, "activation": "softmax"})
    path.write_text(json.dumps(document))
    assert run_oof(museum, own_zoo, "extra") == 0
    ids = [line.split(",")[0] for line in (museum / "train.csv").read_text().splitlines()[1:]]
    assert (own_zoo / "extra.oof.ids.txt").read_text().split() == ids
    scores = np.load(own_zoo / "extra.oof.npy")
    assert (scores.shape, scores.dtype) == ((60, 3), np.float16)
    np.testing.assert_allclose(scores.astype(np.float32).sum(axis=1), 1, atol=2e-3)
    document = json.loads(path.read_text())
    document["models"][-1] |= {"fold": 1, "activation": "identity"}
    path.write_text(json.dumps(document))
    assert run_oof(museum, own_zoo, "extra") == 0
    assert (own_zoo / "extra.oof.ids.txt").read_text() == (zoo / "culture_f1.oof.ids.txt").read_text()
    assert np.load(own_zoo / "extra.oof.npy").dtype == np.float32


def test_graphs_and_bundles_are_refused_with_the_way_to_their_predictions(
    museum: Path, own_zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = own_zoo / "weights_manifest.json"
    for changes, found in (
        ({"layout": "nchw"}, "`layout`: its checkpoint is an ONNX graph"),
        ({"checkpoint": None}, "`checkpoint`: missing"),
    ):
        document = json.loads(path.read_text())
        document["models"][0] |= changes
        path.write_text(json.dumps(document))
        assert run_oof(museum, own_zoo) == 1
        assert capsys.readouterr().err == (
            f"error: {path}: model culture_f0: {found}, which oof cannot run; export and pack the zoo, run "
            f"`inference.pyz --images {museum}/train --predictions DIR`, and declare its predictions of held-out "
            "images with `build_kernel.py add --oof`\n"
        )


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
