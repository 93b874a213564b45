import csv
import io
import shutil
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from PIL import Image, ImageOps
from safetensors.torch import load_file
from sklearn.metrics import fbeta_score
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform

from training.__main__ import main


@dataclass(frozen=True)
class Fitted:
    """What a run left behind."""

    out: Path
    name: str
    printed: str


def run_fit(museum: Path, out: Path, *options: str) -> str:
    command = ["fit", "--data", str(museum), "--architecture", "test_resnet", "--image-size", "32", "--out", str(out)]
    with redirect_stdout(io.StringIO()) as printed:
        assert main([*command, "--fold", "1", "--epochs", "1", "--batch-size", "16", *options]) == 0
    return printed.getvalue()


@pytest.fixture(scope="module")
def fitted(museum: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    out = tmp_path_factory.mktemp("zoo") / "new"
    return Fitted(out, "test_resnet_32_culture_f1", run_fit(museum, out, "--group", "culture", "--precision", "fp16"))


def read_rows(museum: Path) -> list[tuple[str, list[int]]]:
    with (museum / "train.csv").open(newline="") as file:
        return [(row["id"], [int(word) for word in row["attribute_ids"].split()]) for row in csv.DictReader(file)]


def predict_with_timm(museum: Path, fitted: Fitted, **transform: object) -> np.ndarray:
    """Mean of the image and its mirror image, by timm's own network and evaluation transform."""
    network = timm.create_model("test_resnet", pretrained=False, num_classes=3).eval()
    network.load_state_dict(load_file(fitted.out / f"{fitted.name}.safetensors"))
    timms = resolve_data_config({}, model=network)  # type: ignore[no-untyped-call]
    config = {**timms, "input_size": (3, 32, 32), "crop_pct": 1.0, **transform}
    show = create_transform(**config, is_training=False)
    ids = (fitted.out / f"{fitted.name}.oof.ids.txt").read_text().split()
    with torch.inference_mode():
        answers = []
        for name in ids:
            picture = show(Image.open(museum / "train" / f"{name}.png").convert("RGB"))
            answers.append(network(torch.stack([picture, picture.flip(2)])).sigmoid().mean(dim=0).numpy())
    return np.stack(answers)


def test_the_files_are_written_and_nothing_else(fitted: Fitted) -> None:
    suffixes = (".metrics.csv", ".oof.ids.txt", ".oof.npy", ".safetensors")
    assert sorted(path.name for path in fitted.out.iterdir()) == [fitted.name + suffix for suffix in suffixes]


def test_the_ids_are_exactly_those_of_the_fold(museum: Path, fitted: Fitted) -> None:
    rows = read_rows(museum)
    targets = np.array([[label in labels for label in range(7)] for _, labels in rows])
    splits = list(MultilabelStratifiedKFold(5, shuffle=True, random_state=0).split(targets, targets))
    expected = [rows[row][0] for row in splits[1][1]]
    assert (fitted.out / f"{fitted.name}.oof.ids.txt").read_text() == "".join(f"{name}\n" for name in expected)


def test_the_predictions_are_what_timm_says_of_the_image_and_its_mirror_image(museum: Path, fitted: Fitted) -> None:
    scores = np.load(fitted.out / f"{fitted.name}.oof.npy")
    expected = predict_with_timm(museum, fitted, crop_mode="squash")
    assert (scores.dtype, scores.shape) == (np.float16, expected.shape)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=5e-4)


def test_the_centre_crop_is_timms_too(museum: Path, tmp_path: Path) -> None:
    printed = run_fit(
        museum, tmp_path, "--group", "culture", "--resize", "crop", "--crop-percentage", "0.8", "--name", "c"
    )
    expected = predict_with_timm(museum, Fitted(tmp_path, "c", printed), crop_mode="center", crop_pct=0.8)
    np.testing.assert_allclose(np.load(tmp_path / "c.oof.npy"), expected, rtol=0, atol=5e-4)
    assert printed.endswith(f"--resize crop --fold 1 --oof {tmp_path}/c.oof.npy --crop-percentage 0.8\n")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    museum: Path, fitted: Fitted, tmp_path: Path
) -> None:
    for seed in ("0", "1"):
        run_fit(museum, tmp_path / seed, "--group", "culture", "--precision", "fp16", "--seed", seed)
    for suffix in (".safetensors", ".oof.npy", ".oof.ids.txt"):
        first, same, other = (
            (folder / (fitted.name + suffix)).read_bytes() for folder in (fitted.out, tmp_path / "0", tmp_path / "1")
        )
        assert first == same, suffix
        assert first != other, suffix


def test_fp16_weights_are_half_as_long_and_fp32_is_the_default(museum: Path, fitted: Fitted, tmp_path: Path) -> None:
    run_fit(museum, tmp_path, "--group", "all", "--name", "both")
    half, whole = load_file(fitted.out / f"{fitted.name}.safetensors"), load_file(tmp_path / "both.safetensors")
    assert {tensor.dtype for tensor in half.values()} == {torch.float16, torch.int64}
    assert {tensor.dtype for tensor in whole.values()} == {torch.float32, torch.int64}
    assert len(whole["fc.bias"]) == 7


def test_the_rounded_weights_are_the_ones_that_predict(
    museum: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rounding to fp16 is too small to see in so small a network: to nothing at all is not.
    def round_away(module: torch.nn.Module, _: str) -> dict[str, torch.Tensor]:
        return {name: torch.zeros(tensor.shape) for name, tensor in module.state_dict().items()}

    monkeypatch.setattr("training.fit.round_weights", round_away)
    run_fit(museum, tmp_path, "--group", "tag", "--name", "tags")
    assert set(np.load(tmp_path / "tags.oof.npy").ravel()) == {0.5}


def test_the_printed_f2_is_scikit_learns_at_the_best_threshold(museum: Path, fitted: Fitted) -> None:
    scores = np.load(fitted.out / f"{fitted.name}.oof.npy")
    wanted = dict(read_rows(museum))
    ids = (fitted.out / f"{fitted.name}.oof.ids.txt").read_text().split()
    truth = np.array([[label in wanted[name] for label in range(3)] for name in ids])
    rows = truth.any(axis=1)
    best = max(
        fbeta_score(truth[rows], scores[rows] >= step / 200, beta=2, average="samples", zero_division=0)
        for step in range(1, 200)
    )
    line = next(line for line in fitted.printed.splitlines() if line.startswith("F2"))
    assert line.startswith(f"F2 {best:.4f} at threshold ")
    assert line.endswith(f" on {rows.sum()} held-out images; {(~rows).sum()} without a label of the group left out")


def test_the_command_to_run_next_is_printed(fitted: Fitted) -> None:
    stem = fitted.out / fitted.name
    assert fitted.printed.endswith(
        f"  python build_kernel.py add {stem}.safetensors --architecture test_resnet --image-size 32 --group culture "
        f"--resize squash --fold 1 --oof {stem}.oof.npy\n"
    )


def test_the_loss_of_each_epoch_is_written_and_falls(museum: Path, tmp_path: Path) -> None:
    run_fit(museum, tmp_path, "--group", "tag", "--name", "tags", "--epochs", "6", "--fold", "0")
    with (tmp_path / "tags.metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert float(rows[-1]["loss"]) < 0.9 * float(rows[0]["loss"])


def test_images_that_cannot_be_read_are_named_and_left_out(
    museum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(museum, tmp_path / "data")
    names = [name for name, _ in read_rows(museum)]
    for name in names[:6]:
        (data / "train" / f"{name}.png").unlink()
    (data / "train" / f"{names[6]}.png").write_bytes(b"no picture")
    run_fit(data, tmp_path / "zoo", "--group", "tag", "--name", "tags")
    told = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("left out"))
    missing = "; ".join(f"{name}: no such image in {data / 'train'}" for name in names[:5])
    assert told == f"left out 7 images: {missing}; and 2 more"
    held_out = (tmp_path / "zoo" / "tags.oof.ids.txt").read_text().split()
    assert held_out
    assert not set(names[:7]) & set(held_out)


def test_an_upright_image_is_trained_on_whatever_its_exif_says(museum: Path, fitted: Fitted, tmp_path: Path) -> None:
    data = shutil.copytree(museum, tmp_path / "data")
    for path in (data / "train").iterdir():
        with Image.open(path) as picture:
            exif = Image.Exif()
            exif[0x0112] = 3
            ImageOps.flip(ImageOps.mirror(picture)).save(path, exif=exif)
    run_fit(data, tmp_path / "zoo", "--group", "culture", "--precision", "fp16")
    name = f"{fitted.name}.safetensors"
    assert (tmp_path / "zoo" / name).read_bytes() == (fitted.out / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--architecture", "zzz"],
            f"--architecture: found 'zzz', which timm {timm.__version__} lacks; timm.list_models() lists the names",
        ),
        (["--group", "medium"], "--group: found 'medium', wanted 'all' or a group of labels.csv: culture, tag"),
        (["--fold", "5"], "--fold: found 5, wanted 0 to 4 with --folds 5"),
        (["--fold", "-1"], "--fold: found -1, wanted 0 to 4 with --folds 5"),
        (["--folds", "1"], "--folds: found 1, wanted at least 2"),
        (["--folds", "61"], "--folds: found 61, wanted at most the number of images, 60"),
        (["--epochs", "0"], "--epochs: found 0, wanted at least 1"),
        (["--batch-size", "1"], "--batch-size: found 1, wanted at least 2"),
        (["--limit", "0"], "--limit: found 0, wanted at least 1"),
        (["--image-size", "4"], "--image-size: found 4, wanted at least 8"),
        (["--learning-rate", "nan"], "--learning-rate: found nan, wanted a number above 0"),
        (["--crop-percentage", "1.5"], "--crop-percentage: found 1.5, wanted a number above 0, at most 1"),
        (["--name", "a/b"], "--name: found 'a/b', wanted letters, digits, '.', '_' and '-'"),
        (["--learning-rate", "1e30"], "epoch 1: the loss is nan; try a lower --learning-rate"),
    ],
)
def test_settings_that_cannot_be_used_are_told_in_one_line(
    options: list[str], message: str, museum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", "--data", str(museum), "--architecture", "test_resnet", "--image-size", "32", "--group", "tag"]
    assert main([*command, "--out", str(tmp_path), "--batch-size", "8", "--epochs", "1", *options]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {message}"
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("train.csv", None, "{data}/train.csv: no such file; wanted a table with the columns id and attribute_ids"),
        ("train.csv", "id,labels\na,1\n", "{data}/train.csv: no `attribute_ids` column; found id, labels"),
        ("train.csv", "id,attribute_ids\n", "{data}/train.csv: has no row; wanted one for each image"),
        ("train.csv", "id,attribute_ids\na,3 9\n", "{data}/train.csv: image a has label 9, which labels.csv lacks"),
        (
            "train.csv",
            "id,attribute_ids\na,3 x\n",
            "{data}/train.csv: image a: found attribute_ids '3 x', wanted whole numbers",
        ),
        ("train.csv", "id,attribute_ids\na,3\na,4\n", "{data}/train.csv: image a is given twice; ids must differ"),
        (
            "train.csv",
            "id,attribute_ids\na,3\nb,4\nc,3\nd,4\ne,3\n",
            "{data}/train: holds none of the 5 images of train.csv; wanted files such as a.png",
        ),
        ("labels.csv", None, "{data}/labels.csv: no such file"),
        (
            "labels.csv",
            "attribute_id,attribute_name\n0,red\n",
            "{data}/labels.csv: label 0 'red' names no group; wanted GROUP::NAME, as in tag::men",
        ),
    ],
)
def test_tables_that_cannot_be_used_are_told_in_one_line(
    file: str, text: str | None, message: str, museum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(museum, tmp_path / "data")
    (data / file).unlink()
    if text is not None:
        (data / file).write_text(text)
    command = ["fit", "--data", str(data), "--architecture", "test_resnet", "--image-size", "32", "--group", "tag"]
    assert main([*command, "--out", str(tmp_path / "zoo")]) == 1
    assert capsys.readouterr().err == f"error: {message.format(data=data)}\n"


def test_an_unknown_architecture_is_told_with_the_nearest_names(
    museum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", "--data", str(museum), "--architecture", "resnet10tt", "--image-size", "32", "--group", "tag"]
    assert main([*command, "--out", str(tmp_path)]) == 1
    version = timm.__version__
    assert capsys.readouterr().err.startswith(
        f"error: --architecture: found 'resnet10tt', which timm {version} lacks; did you mean resnet10t or "
    )


def test_a_network_that_does_not_take_the_size_is_told_before_an_image_is_read(
    museum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", "--data", str(museum), "--architecture", "test_vit", "--image-size", "33", "--group", "tag"]
    assert main([*command, "--out", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: --image-size: test_vit does not take 33 px: ")
    assert told.count("\n") == 1
