"""Two teams on the demo dataset: other folds, other networks, other order and ids of the labels; then `merge`.

python -m benchmarks.zoo.team build/team          draws, trains, fits, merges, packs and scores; minutes per network

Prints the F2 of each team alone, of one second stage over both, and of both second stages kept, out of fold and on
the 600 test images; and whether two machines pack the same bytes.
"""

import argparse
import csv
import filecmp
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

from inference.manifest.file import MANIFEST_NAME
from zoo.text import align_columns

TRAIN_IMAGES = 2400
RECIPE = """architecture = "{network}"
image_size = {size}
folds = {folds}
seed = {seed}
epochs = {epochs}
batch_size = 64
cache = 96

[optimizer]
name = "adamw"
learning_rate = 6e-3
weight_decay = 0.01

[augmentation]
smallest_crop = 0.85
"""
# Networks of each team with their image sizes, the number of folds and the seed of the split.
TEAMS = {
    "mine": ((("test_resnet", 64), ("test_efficientnet", 64)), 2, 0),
    "theirs": ((("test_byobnet", 64), ("test_resnet", 48)), 3, 7),
}


def run(*words: object) -> str:
    """Run a Python module or script; return what it printed. Ends the benchmark if it fails."""
    finished = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{finished.stdout[-2000:]}{finished.stderr[-2000:]}")
    return finished.stdout


def read_rows(path: Path) -> list[list[str]]:
    """Read a table with its header."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def write_rows(path: Path, rows: list[list[str]]) -> None:
    """Write a table with its header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def renumber_labels(source: Path, target: Path) -> None:
    """Write the dataset with its labels in another order and with other ids; the images are the same files."""
    target.mkdir()
    header, *labels = read_rows(source / "labels.csv")
    random.Random(5).shuffle(labels)
    ids = {old: str(500 + 3 * place) for place, (old, _) in enumerate(labels)}
    write_rows(target / "labels.csv", [header, *([ids[old], name] for old, name in labels)])
    for table in ("train.csv", "truth.csv", "sample_submission.csv"):
        first, *rows = read_rows(source / table)
        write_rows(
            target / table, [first, *([image, " ".join(ids[old] for old in cell.split())] for image, cell in rows)]
        )
    for folder in ("train", "test"):
        shutil.copytree(source / folder, target / folder, copy_function=os.link)


def cut_table(data: Path, images: int) -> None:
    """Keep the rows of train.csv whose images are drawn."""
    header, *rows = read_rows(data / "train.csv")
    drawn = {path.stem for path in (data / "train").iterdir()}
    write_rows(data / "train.csv", [header, *(row for row in rows if row[0] in drawn)][: images + 1])


def train_team(name: str, data: Path, home: Path, epochs: int) -> None:
    """Train the networks of a team and fit its second stage."""
    networks, folds, seed = TEAMS[name]
    home.mkdir()
    for network, size in networks:
        recipe = home / f"{network}_{size}.toml"
        recipe.write_text(RECIPE.format(network=network, size=size, folds=folds, seed=seed, epochs=epochs))
        run("-m", "training", "fit", recipe, "--data", data, "--out", home)
    fit_stage(home, data)


def fit_stage(home: Path, data: Path) -> None:
    """Fit the second stage of a zoo."""
    step("ensemble", home, "--train", data / "train.csv", "--images", data / "train")


def step(name: str, home: Path, *words: object) -> str:
    """Run a step of build_kernel.py on a zoo."""
    return run("build_kernel.py", name, "--manifest", home / MANIFEST_NAME, *words)


def submit(home: Path, data: Path) -> float:
    """Export, pack and run a zoo on the test images; return the F2 of its submission."""
    step("export", home, "--images", data / "test", "--out", home / "onnx", "--precisions", "fp32")
    pack(home, home / "bundle")
    dataset = home / "bundle" / "dataset"
    submission = home / "submission.csv"
    run(dataset / "inference.pyz", "--bundle", dataset, "--competition", data, "--out", submission, "--strict")
    truth = ["--truth", data / "truth.csv", "--manifest", home / MANIFEST_NAME]
    said = run("-m", "training", "score", "--submission", submission, *truth)
    return float(re.findall(r"F2 (\S+)", said)[0])


def pack(home: Path, out: Path) -> None:
    """Pack a zoo."""
    names = ["--owner", "team", "--competition", "museum", "--slug", "team-bundle", "--title", "Team bundle"]
    step("pack", home, "--onnx", home / "onnx", "--out", out, *names)


def read_figure(home: Path) -> str:
    """Return the nested out-of-fold F2 of a zoo's second stage, with the number of images."""
    figures = json.loads((home / "second_stage" / "second_stage.json").read_text(encoding="utf-8"))
    best = max(figures["rules"], key=lambda rule: float(rule["score"]))
    return f"{best['score']:.4f} of {figures['images']} images"


def main() -> int:
    """Print the table; return 1 if the bytes of two packs differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="new folder for the data, the zoos and the bundles")
    parser.add_argument("--epochs", type=int, default=10, metavar="N", help="epochs per network (10)")
    given = parser.parse_args()
    out: Path = given.out
    out.mkdir(parents=True)
    data = {"mine": out / "data-mine", "theirs": out / "data-theirs"}
    run("-m", "demo", "--out", data["mine"], "--train", TRAIN_IMAGES)
    cut_table(data["mine"], TRAIN_IMAGES)
    renumber_labels(data["mine"], data["theirs"])
    rows = [["zoo", "nested out of fold", "test"]]
    for name in TEAMS:
        train_team(name, data[name], out / name, given.epochs)
        rows.append([name, read_figure(out / name), f"{submit(out / name, data[name]):.4f}"])
    both = [out / name / MANIFEST_NAME for name in TEAMS]
    train = data["mine"] / "train.csv"
    print(run("build_kernel.py", "merge", *both, "--out", out / "one", "--train", train))
    fit_stage(out / "one", data["mine"])
    rows.append(["one second stage", read_figure(out / "one"), f"{submit(out / 'one', data['mine']):.4f}"])
    print(run("build_kernel.py", "merge", *both, "--out", out / "kept", "--train", train, "--keep-stages"))
    rows.append(["both kept", "see above", f"{submit(out / 'kept', data['mine']):.4f}"])
    print("\n".join(align_columns(rows, left=1)))
    shutil.copytree(out / "kept", out / "elsewhere" / "kept", ignore=shutil.ignore_patterns("bundle"))
    pack(out / "elsewhere" / "kept", out / "elsewhere" / "bundle")
    here, there = out / "kept" / "bundle" / "dataset", out / "elsewhere" / "bundle" / "dataset"
    names = sorted(path.name for path in here.iterdir())
    _, different, errors = filecmp.cmpfiles(here, there, names, shallow=False)
    print(f"packed in two places: {len(names)} files, {len(different) + len(errors)} differ")
    return int(bool(different or errors))


if __name__ == "__main__":
    sys.exit(main())
