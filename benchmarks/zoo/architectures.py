"""Networks of many families, with random weights, through `add` and `export`: the parity of each, or why it fails.

python -m benchmarks.zoo.architectures build/demo/museum          a table, after `make demo`
python -m benchmarks.zoo.architectures build/demo/museum --only hiera_tiny_224:64 xcit_nano_12_p8_224:64
"""

import argparse
import contextlib
import io
import json
import re
import shutil
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from tqdm import tqdm

import build_kernel
from inference.manifest.file import MANIFEST_NAME
from zoo.text import align_columns

# timm's name and the image size in px: small variants of their families, at sizes that keep a run short.
NETWORKS = Path(__file__).with_name("networks.txt").read_text(encoding="utf-8").split()
SPREAD = 3.0  # standard deviation of the logits of a head whose input has 1: new heads are often nearly 0


@dataclass(frozen=True)
class Outcome:
    """What became of one network."""

    name: str
    size: int
    millions: float
    """Parameters."""
    step: str
    """The step that failed, or empty."""
    said: str
    """Its last line."""
    parity: dict[str, float]
    """By precision."""


def write_checkpoint(name: str, size: int, outputs: int, path: Path) -> float:
    """Write a network with random weights as its users would make it; return its parameters in millions."""
    torch.manual_seed(0)
    try:
        network = timm.create_model(name, num_classes=outputs, img_size=size)
    except TypeError:  # it takes any size
        network = timm.create_model(name, num_classes=outputs)
    with torch.no_grad():
        heads: Any = network.get_classifier()  # type: ignore[operator]
        for head in heads if isinstance(heads, tuple) else (heads,):
            for weight in head.parameters() if isinstance(head, torch.nn.Module) else ():
                if weight.ndim > 1:
                    weight.normal_(0, SPREAD / weight[0].numel() ** 0.5)
    save_file({key: tensor.contiguous().clone() for key, tensor in network.state_dict().items()}, path)
    return sum(weight.numel() for weight in network.parameters()) / 1e6


def run_step(*words: str) -> tuple[int, str]:
    """Run a step of build_kernel.py in this process; return its exit code and its last line, or 'traceback'."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            code = build_kernel.main(words)
        except Exception:  # a user would see it
            return 1, "traceback"
    lines = [line for line in re.split(r"[\r\n]+", text.getvalue()) if line.strip() and "it/s" not in line]
    return code, lines[-1].strip() if lines else ""


def try_network(name: str, size: int, museum: Path, zoo: Path, images: Path) -> Outcome:
    """Add and export one network in a copy of the empty zoo."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "zoo"
        shutil.copytree(zoo, home)
        document: dict[str, Any] = json.loads((home / MANIFEST_NAME).read_text(encoding="utf-8"))
        outputs = len((home / document["labels"]["file"]).read_text(encoding="utf-8").splitlines()) - 1
        try:
            millions = write_checkpoint(name, size, outputs, home / "net.safetensors")
        except Exception as error:  # timm itself fails at this size
            return Outcome(name, size, 0.0, "timm", " ".join(str(error).split())[:200], {})
        manifest = ["--manifest", str(home / MANIFEST_NAME)]
        shape = ["--architecture", name, "--image-size", str(size), "--group", "all"]
        code, said = run_step("add", str(home / "net.safetensors"), *manifest, *shape)
        if code:
            return Outcome(name, size, millions, "add", said, {})
        code, said = run_step("export", *manifest, "--images", str(images), "--out", str(home / "onnx"))
        if code:
            return Outcome(name, size, millions, "export", said, {})
        exported = json.loads((home / "onnx" / MANIFEST_NAME).read_text(encoding="utf-8"))["models"][0]["onnx"]
        return Outcome(name, size, millions, "", "", {kind: entry["parity"] for kind, entry in exported.items()})


def describe(outcome: Outcome) -> list[str]:
    """Return the row of an outcome."""
    shown = [f"{outcome.parity[kind]:.0e}" if kind in outcome.parity else "-" for kind in ("fp32", "fp16")]
    said = f"{outcome.step}: {outcome.said}" if outcome.step else ""
    return [outcome.name, f"{outcome.size}", f"{outcome.millions:.1f}", *shown, said]


def main() -> int:
    """Print a row per network; return 1 if one ended in a traceback."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("museum", type=Path, help="the demo dataset, with test images")
    parser.add_argument("--only", nargs="+", default=NETWORKS, metavar="NAME:SIZE", help="these networks (all)")
    parser.add_argument("--images", type=int, default=16, metavar="N", help="images to measure parity on (16)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        zoo, images = Path(folder) / "empty", Path(folder) / "images"
        images.mkdir()
        for path in sorted((given.museum / "test").iterdir())[: given.images]:
            shutil.copyfile(path, images / path.name)
        code, said = run_step("init", str(given.museum), "--out", str(zoo), "--metric", "f2")
        if code:
            print(f"error: {said}", file=sys.stderr)
            return 1
        outcomes = []
        for word in tqdm(given.only, unit="network"):
            name, _, size = word.partition(":")
            outcome = try_network(name, int(size), given.museum, zoo, images)
            outcomes.append(outcome)
            tqdm.write("  ".join(describe(outcome)))
    rows = [["network", "px", "M", "fp32", "fp16", "fails in"], *map(describe, outcomes)]
    print("\n".join(align_columns(rows, left=1)))
    failed = [outcome for outcome in outcomes if outcome.step]
    print(f"{len(outcomes)} networks, {len(outcomes) - len(failed)} exported, {len(failed)} failed")
    return int(any(outcome.said == "traceback" for outcome in failed))


if __name__ == "__main__":
    sys.exit(main())
