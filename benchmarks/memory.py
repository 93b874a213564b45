"""Peak memory of a run on the CPU, compared with the statement of `build_kernel.py plan`.

python -m benchmarks.memory                                            ten networks of SE-ResNeXt101's size, 15 minutes
python -m benchmarks.memory --network resnet34@224 --models 1 4        others, with less and more models

The models of a bundle have the same random weights, in a file each. The run is that of the packed script.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.kernel import pack_random, run_script
from inference.manifest.file import MANIFEST_NAME, read_manifest, write_manifest
from packing.accelerators import find_accelerator
from packing.plan.run_plan import make_plan


def repeat_model(folder: Path, dataset: Path, count: int, batch_size: int) -> tuple[Path, Path]:
    """Write the manifest at home and the bundle of `count` equal models; return the paths of both.

    `folder`, `dataset`: of `pack_random` with one network.
    """
    home, bundle = folder / f"zoo-{count}.json", folder / f"bundle-{count}"
    bundle.mkdir(exist_ok=True)
    for path in dataset.iterdir():
        (bundle / path.name).unlink(missing_ok=True)
        (bundle / path.name).hardlink_to(path)
    (bundle / MANIFEST_NAME).unlink()
    for source, target in ((folder / MANIFEST_NAME, home), (dataset / MANIFEST_NAME, bundle / MANIFEST_NAME)):
        manifest = read_manifest(source)
        (model,) = manifest.models
        models = []
        for index in range(count):
            entries = {name: replace(one, file=f"{index}-{one.file}") for name, one in model.onnx.items()}
            for name, entry in entries.items():
                (bundle / entry.file).unlink(missing_ok=True)
                (bundle / entry.file).hardlink_to(dataset / model.onnx[name].file)
            models.append(replace(model, name=f"{model.name}-{index}", onnx=entries))
        weights = {group: {one.name: 1.0 for one in models} for group in manifest.labels.groups}
        write_manifest(
            replace(
                manifest,
                models=tuple(models),
                ensemble=replace(manifest.ensemble, weights=weights),
                runtime=replace(manifest.runtime, batch_size=batch_size),
            ),
            target,
        )
    return home, bundle


def main(given: Sequence[str] | None = None) -> int:
    """Print the table and write it to DIR/memory.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"), metavar="DIR", help="output folder")
    parser.add_argument("--network", default="legacy_seresnext101_32x4d@320", metavar="ARCHITECTURE@SIZE")
    parser.add_argument("--models", type=int, nargs="+", default=[10], metavar="N", help="numbers of models (10)")
    parser.add_argument("--images", type=int, default=64, metavar="N", help="images of a run (64)")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images per batch (32)")
    arguments = parser.parse_args(given)
    architecture, _, size = arguments.network.partition("@")
    folder = arguments.out.resolve() / f"memory-{architecture}"
    folder.mkdir(parents=True, exist_ok=True)
    dataset, rows = pack_random(folder, {architecture: int(size)}), []
    print("| models | images | stated, GB | measured, GB | stated / measured |\n|---|---|---|---|---|")
    for count in arguments.models:
        home, bundle = repeat_model(folder, dataset, count, arguments.batch_size)
        plan = make_plan(home, find_accelerator("CPU"), arguments.images)
        row = {"models": count, "stated": plan.memory / 1e9}
        row["measured"] = run_script(bundle, folder, arguments.images, ["--fresh"]).peak * 2**20 / 1e9
        rows.append(row)
        print(
            f"| {count} | {arguments.images} | {row['stated']:.2f} | {row['measured']:.2f} | "
            f"{row['stated'] / row['measured']:.2f} |",
            flush=True,
        )
    figures = {"network": arguments.network, "batch_size": arguments.batch_size, "runs": rows}
    (folder.parent / "memory.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
