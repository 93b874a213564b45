#!/usr/bin/env python3
"""From checkpoints to a Kaggle bundle: one command, a subcommand a step."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from inference.basics.errors import VitrineError
from inference.manifest.file import MANIFEST_NAME
from inference.manifest.records import Resize

HERE = Path(__file__).parent
MUSEUM_TEST_IMAGES = 600
MUSEUM_EXAMPLES = 48


def add(arguments: argparse.Namespace) -> None:
    """Append a model to the manifest."""
    from packing.add.add import Addition, add_model

    addition = Addition(
        checkpoint=arguments.checkpoint,
        architecture=arguments.architecture,
        image_size=arguments.image_size,
        group=arguments.group,
        name=arguments.name or arguments.checkpoint.stem,
        resize=Resize(arguments.resize, arguments.crop_percentage),
        fold=arguments.fold,
        oof=arguments.oof,
    )
    model = add_model(arguments.manifest, addition, arguments.labels, arguments.train)
    print(f"{arguments.manifest}: added {model.name}, {model.architecture} at {model.image_size} px for {model.group}")


def fit(arguments: argparse.Namespace) -> None:
    """Fit the second stage."""
    from training.second_stage.fitted import LayerSettings
    from training.second_stage.run import StageSettings, fit_second_stage

    settings = StageSettings(
        manifest=arguments.manifest,
        train=arguments.train,
        images=arguments.images,
        folds=arguments.folds,
        layers=LayerSettings("cnn" not in arguments.without, "trees" not in arguments.without, arguments.seed),
    )
    fit_second_stage(settings)


def export(arguments: argparse.Namespace) -> None:
    """Export every model to ONNX."""
    from packing.export.export import describe_entry, export_zoo

    images = arguments.images or draw_examples(arguments.out)
    manifest = export_zoo(arguments.manifest, arguments.out, images, arguments.precisions, arguments.truth)
    limit = manifest.runtime.f2_loss
    for model in manifest.models:
        for precision, entry in model.onnx.items():
            size = (arguments.out / entry.file).stat().st_size / 1e6
            print(f"{arguments.out / entry.file}  {size:.1f} MB  {describe_entry(precision, entry, limit)}")


def plan(arguments: argparse.Namespace) -> None:
    """Foretell a run on an accelerator."""
    from packing.accelerators import find_accelerator
    from packing.dry_run.script import STAGE_2_IMAGES
    from packing.plan.chart import draw_plan
    from packing.plan.plan import describe_plan, make_plan

    accelerator = find_accelerator(arguments.accelerator)
    images = STAGE_2_IMAGES if arguments.images is None else arguments.images
    made = make_plan(arguments.manifest, accelerator, images, arguments.time_limit, arguments.precision, arguments.log)
    draw_plan(made, arguments.out)
    if accelerator.notice:
        print(f"note: {accelerator.notice}")
    print(f"{describe_plan(made)}\n{arguments.out}")


def pack(arguments: argparse.Namespace) -> None:
    """Make the dataset and the kernel."""
    from packing.accelerators import find_accelerator
    from packing.pack.bundle import pack as pack_bundle
    from packing.pack.fetch_wheels import fetch_wheels
    from packing.pack.metadata import Names

    names = Names(arguments.owner, arguments.slug, arguments.title, arguments.competition)
    accelerator = find_accelerator(arguments.accelerator)
    wheels = fetch_wheels(arguments.wheels, arguments.wheels_cache) if arguments.wheels else ()
    packed = pack_bundle(arguments.manifest, arguments.onnx, arguments.out, names, accelerator, wheels)
    if accelerator.notice:
        print(f"note: {accelerator.notice}")
    if not wheels:
        print("note: Kaggle's image has no onnxruntime; `pack --wheels` carries it")
    print(f"{packed.dataset}  {packed.size / 1e6:.1f} MB  {names.dataset_id}")
    print(f"{packed.kernel}  {names.kernel_title}")


def dry_run(arguments: argparse.Namespace) -> None:
    """Run a bundle as Kaggle would."""
    if arguments.like_kaggle:
        from packing.dry_run.notebook import PAGE, rehearse_like_kaggle

        near = rehearse_like_kaggle(
            arguments.bundle,
            arguments.images,
            arguments.sample,
            arguments.out,
            arguments.cache,
            arguments.limit,
            arguments.time_limit,
            arguments.layout,
            arguments.python,
        )
        print(f"{arguments.out / 'submission.csv'}: valid; the page is {arguments.out / PAGE}")
        print(near.describe())
        return
    from packing.dry_run.script import rehearse

    rehearsal = rehearse(
        arguments.bundle,
        arguments.images,
        arguments.sample,
        arguments.out,
        arguments.limit,
        arguments.time_limit,
        arguments.predictions,
        not arguments.lenient,
    )
    print(f"{arguments.out / 'submission.csv'}: valid")
    print(rehearsal.describe())


def check(arguments: argparse.Namespace) -> None:
    """Check a bundle."""
    from packing.check.check import check_bundle

    manifest = check_bundle(arguments.bundle)
    print(f"{arguments.bundle}: good; {len(manifest.models)} models")


def upload(arguments: argparse.Namespace) -> None:
    """Bring a bundle to Kaggle."""
    from packing.upload.upload import describe_upload, follow_kernel, prepare_upload, push_kernel, upload_dataset

    limits = {"ready_limit": arguments.ready_limit, "run_limit": arguments.run_limit, "pause": arguments.pause}
    prepared = prepare_upload(arguments.bundle, **limits)
    if arguments.print:
        print(describe_upload(prepared, arguments.wait, arguments.out))
        return
    if not upload_dataset(prepared):
        print(f"{prepared.dataset_id}: Kaggle has this bundle already")
    pushed = push_kernel(prepared)
    print(follow_kernel(prepared, pushed, arguments.out) if arguments.wait else f"{pushed}: pushed, and running")


def demo(arguments: argparse.Namespace) -> None:
    """The whole road on the demo museum."""
    from demo.museum import write_museum
    from demo.report import print_report
    from packing.dry_run.script import rehearse
    from packing.export.export import export_zoo
    from packing.pack.bundle import pack as pack_bundle
    from packing.pack.metadata import Names

    out = arguments.out
    museum = out / "museum"
    write_museum(museum, train_images=0, test_images=MUSEUM_TEST_IMAGES)
    export_zoo(arguments.manifest, out / "onnx", museum / "test")
    names = Names("your-kaggle-name", "museum-bundle", "Museum bundle", "imet-2019-fgvc6")
    packed = pack_bundle(arguments.manifest, out / "onnx", out / "bundle", names)
    rehearsal = rehearse(packed.dataset, museum / "test", museum / "sample_submission.csv", out, predictions=True)
    print(f"{out / 'submission.csv'}: valid\n{rehearsal.describe()}\n")
    print_report(arguments.manifest, museum, out)


def draw_examples(folder: Path) -> Path:
    """Museum images for whoever exports without naming images of their own."""
    from demo.museum import write_museum

    write_museum(folder / "examples", train_images=0, test_images=MUSEUM_EXAMPLES)
    return folder / "examples" / "test"


def seconds(text: str) -> float:
    """An argument such as 9h."""
    from packing.dry_run.script import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def build_parser() -> argparse.ArgumentParser:
    """The table of subcommands."""
    parser = argparse.ArgumentParser(
        prog="build_kernel.py", description=__doc__, epilog="build_kernel.py COMMAND --help shows an example of each."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], None], purpose: str, example: str) -> Any:
        added = commands.add_parser(
            name,
            help=purpose,
            description=purpose,
            epilog=f"example:\n  python build_kernel.py {name} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    def takes_manifest(added: argparse.ArgumentParser) -> None:
        added.add_argument("--manifest", type=Path, default=Path(MANIFEST_NAME), help=f"the zoo ({MANIFEST_NAME})")

    one = command(
        "add",
        add,
        "append a model to the manifest",
        "zoo/se50_tag.safetensors --architecture legacy_seresnext50_32x4d --image-size 320 --group tag --fold 0",
    )
    takes_manifest(one)
    one.add_argument(
        "checkpoint", type=Path, help=".safetensors, or a state dict of torch.save; below the manifest's folder"
    )
    one.add_argument("--architecture", required=True, help="timm's name of the network")
    one.add_argument("--image-size", type=int, required=True, metavar="N", help="side of the square that it looks at")
    one.add_argument("--group", required=True, help="'all', or the group of labels that its head covers")
    one.add_argument("--name", help="its name in the manifest (the checkpoint's file name)")
    one.add_argument("--resize", choices=("squash", "crop"), default="squash", help="how images become square (squash)")
    one.add_argument(
        "--crop-percentage", type=float, default=1.0, metavar="P", help="part that the centre crop keeps (1)"
    )
    one.add_argument("--fold", type=int, metavar="K", help="the fold that it was not trained on")
    one.add_argument("--oof", type=Path, metavar="FILE", help="NAME.oof.npy, with NAME.oof.ids.txt beside it")
    one.add_argument("--labels", type=Path, metavar="CSV", help="labels.csv, to start a manifest")
    one.add_argument("--train", type=Path, metavar="CSV", help="train.csv, to start a manifest")

    one = command(
        "fit",
        fit,
        "fit the second stage to out-of-fold predictions: blend, stackers, thresholds, values",
        "--train data/train.csv --images data/train",
    )
    takes_manifest(one)
    one.add_argument("--train", type=Path, required=True, metavar="CSV", help="train.csv: the true labels")
    one.add_argument(
        "--images", type=Path, metavar="DIR", help="of the training images, whose brightness and size help the trees"
    )
    one.add_argument("--folds", type=int, default=3, metavar="N", help="outer folds that judge each method (3)")
    one.add_argument(
        "--without",
        action="append",
        choices=("cnn", "trees"),
        default=[],
        help="leave these stackers out; with both given, only the blend, its thresholds and values",
    )
    one.add_argument("--seed", type=int, default=0, metavar="N", help="of folds and stackers (0)")

    one = command("export", export, "export every model to ONNX, with parity against torch", "--images data/test")
    takes_manifest(one)
    one.add_argument("--out", type=Path, default=Path("build/onnx"), metavar="DIR", help="where to (build/onnx)")
    one.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="16 real images or more to measure on, and to calibrate int8 on (museum images)",
    )
    one.add_argument(
        "--precisions",
        nargs="+",
        choices=("fp32", "fp16", "int8"),
        default=["fp32", "fp16"],
        help="fp32 is always written; int8 is for kernels without a GPU (fp32 fp16)",
    )
    one.add_argument(
        "--truth", type=Path, metavar="CSV", help="train.csv of --images: what F2 is lost against (fp32's answer)"
    )

    one = command(
        "plan",
        plan,
        "foretell what a run takes on an accelerator, and what to leave out where that is too long",
        "--accelerator T4x2 --images 38801 --time-limit 9h",
    )
    takes_manifest(one)
    one.add_argument("--accelerator", default="T4x2", metavar="NAME", help="T4x2, P100, L4 or CPU (T4x2)")
    one.add_argument("--images", type=int, metavar="N", help="of the test (iMet 2019's stage 2)")
    one.add_argument("--time-limit", type=seconds, metavar="TIME", help="such as 9h or 90m (the manifest's)")
    one.add_argument("--precision", metavar="NAME", help="fp32 or fp16 (that in which the accelerator is fastest)")
    one.add_argument(
        "--from", type=Path, dest="log", metavar="JSON", help="run_log.json of a run there: its speed, not the table's"
    )
    one.add_argument(
        "--out", type=Path, default=Path("build/plan.png"), metavar="PNG", help="the chart (build/plan.png)"
    )

    one = command(
        "pack",
        pack,
        "make the Kaggle dataset and the notebook",
        "--owner my-name --slug imet-bundle --title 'iMet bundle'",
    )
    takes_manifest(one)
    one.add_argument("--onnx", type=Path, default=Path("build/onnx"), metavar="DIR", help="the export (build/onnx)")
    one.add_argument("--out", type=Path, default=Path("build/bundle"), metavar="DIR", help="where to (build/bundle)")
    owner = os.environ.get("KAGGLE_USERNAME", "your-kaggle-name")
    one.add_argument("--owner", default=owner, help=f"your Kaggle user name ({owner}, from KAGGLE_USERNAME)")
    one.add_argument("--slug", default="vitrine-bundle", help="the dataset's name in addresses (vitrine-bundle)")
    one.add_argument("--title", default="Vitrine bundle", help="the dataset's title (Vitrine bundle)")
    one.add_argument(
        "--competition", default="imet-2019-fgvc6", help="the competition's name in addresses (iMet 2019's)"
    )
    one.add_argument("--accelerator", default="T4x2", metavar="NAME", help="T4x2, P100, L4 or CPU (T4x2)")
    one.add_argument(
        "--wheels",
        nargs="?",
        const="onnxruntime",
        choices=("onnxruntime", "cudnn"),
        help="carry onnxruntime-gpu, which Kaggle's image lacks; with cudnn, the last cuDNN for a P100 too",
    )
    one.add_argument(
        "--wheels-cache", type=Path, default=Path("build/wheels"), metavar="DIR", help="downloads (build/wheels)"
    )

    one = command(
        "dry-run",
        dry_run,
        "run a bundle here as Kaggle would, and check its submission",
        "--bundle build/bundle/dataset --images data/test --sample data/sample_submission.csv --out build/dry-run",
    )
    one.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="the dataset folder of a pack")
    one.add_argument("--images", type=Path, required=True, metavar="DIR", help="the test images")
    one.add_argument("--sample", type=Path, required=True, metavar="CSV", help="sample_submission.csv")
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="for submission.csv and run_log.json")
    one.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    one.add_argument("--time-limit", type=seconds, metavar="TIME", help="such as 9h or 90m (the manifest's)")
    one.add_argument("--predictions", action="store_true", help="keep each model's probabilities in DIR/predictions")
    one.add_argument(
        "--lenient", action="store_true", help="a submission that lacks something is good enough, as it is on Kaggle"
    )

    one.add_argument(
        "--like-kaggle", action="store_true", help="run the notebook, in an environment like Kaggle's image"
    )
    one.add_argument("--layout", choices=("newer", "older"), default="newer", help="Kaggle's mount layout (newer)")
    one.add_argument("--python", metavar="PYTHON", help="for that environment (python3.12, or the nearest there is)")
    one.add_argument("--cache", type=Path, default=Path("build"), metavar="DIR", help="for that environment (build)")

    one = command("check", check, "check a bundle against Kaggle's rules and its own hashes", "build/bundle")
    one.add_argument("bundle", type=Path, metavar="BUNDLE", help="the folder of a pack, or its dataset folder")

    one = command("upload", upload, "bring a bundle to Kaggle with its own client, and run it", "build/bundle --wait")
    one.add_argument("bundle", type=Path, metavar="BUNDLE", help="the folder of a pack")
    one.add_argument("--wait", action="store_true", help="follow the notebook to its end and fetch its results")
    one.add_argument("--print", action="store_true", help="show the commands and run none")
    one.add_argument(
        "--out", type=Path, default=Path("build/upload"), metavar="DIR", help="for the results (build/upload)"
    )
    one.add_argument(
        "--ready-limit", type=seconds, default=1800.0, metavar="TIME", help="for the dataset to be ready (30m)"
    )
    one.add_argument("--run-limit", type=seconds, default=43200.0, metavar="TIME", help="for the notebook (12h)")
    one.add_argument("--pause", type=seconds, default=10.0, metavar="TIME", help="between two questions (10s)")

    one = command("demo", demo, "the whole road on the demo museum, with its F2", "--out build/demo")
    one.add_argument("--out", type=Path, default=Path("build/demo"), metavar="DIR", help="where to (build/demo)")
    one.set_defaults(manifest=HERE / MANIFEST_NAME)
    return parser


def main(given: Sequence[str] | None = None) -> int:
    """Run one subcommand; 1 after an error, told in one line."""
    arguments = build_parser().parse_args(given)
    try:
        arguments.run(arguments)
    except VitrineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"error: {error}; `make .venv` installs all that is needed", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
