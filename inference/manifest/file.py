"""weights_manifest.json: the one declaration of a zoo, the same at home and in the bundle."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from inference.decisions import Decision, check_decision
from inference.errors import ManifestError
from inference.files import hash_file, replace_file
from inference.rules import (
    Count,
    FlatName,
    Interpolation,
    Loss,
    Merge,
    NotNegative,
    Precision,
    Probability,
    RelativePath,
    ResizeRule,
    Sha256,
    Triple,
    View,
    between,
)
from inference.schema import Rule, load_json, parse_record, refuse

MANIFEST_NAME = "weights_manifest.json"
ALL = "all"
BLEND = "blend"
MAX_PIXELS = 100_000_000  # of one image; the longest of iMet 2019, 7531x300, has 2 million
MOST_PIXELS = 178_956_970  # of any limit: beyond, Pillow itself refuses


@dataclass(frozen=True)
class FileEntry:
    """A file beside the manifest and the hash that it must have."""

    file: RelativePath
    sha256: Sha256


@dataclass(frozen=True)
class LabelsEntry:
    """labels.csv and the prefix of each group's label names."""

    file: RelativePath
    sha256: Sha256
    groups: Annotated[
        Mapping[Annotated[str, Rule("a group name other than 'all'", lambda name: name not in ("", ALL))], str],
        Rule("at least one group", lambda groups: len(groups) > 0),
    ]


@dataclass(frozen=True)
class Resize:
    """How an image becomes a square, as timm's evaluation transforms do it.

    `squash` ignores the aspect ratio, `crop` keeps it and takes the centre; both first resize to size / percentage.
    """

    rule: ResizeRule = "squash"
    percentage: Annotated[float, Rule("a number above 0, at most 1", lambda number: 0 < number <= 1)] = 1.0


@dataclass(frozen=True)
class Tiles:
    """How a model looks at long images: at tiles along the long side, of which each view sees all (inference/tiles.py).

    `aspect`: long by short side, beyond which an image is cut; `most`: tiles of one image; `merge`: how the tiles'
    scores become the image's.
    """

    aspect: Annotated[float, Rule("a number above 1, at most 1000", lambda number: 1 < number <= 1000)] = 3.0
    most: Annotated[int, between(2, 32, "a whole number from 2 to 32")] = 8
    merge: Merge = "mean"


@dataclass(frozen=True)
class OutOfFold:
    """Predictions on images that the model was not trained on, as `inference.pyz --predictions` writes them.

    `scores`: .npy, float16, (images, labels of the model's group); `ids`: the image ids of its rows, one a line.
    """

    scores: FileEntry
    ids: FileEntry


@dataclass(frozen=True)
class OnnxEntry:
    """An exported file and what it loses on real images: fp32 against torch, other precisions against fp32.

    `parity`: largest difference in probability; `flips`: labels that the model alone decides otherwise, as a share of
    those taken; `f2_loss`: what their F2 loses, against the truth where export was given it, else against what fp32
    takes. `source`: hash of all that it was made from (packing/export.py), which tells an export that is out of date.
    """

    file: FlatName
    sha256: Sha256
    opset: int
    parity: NotNegative
    source: Sha256
    flips: NotNegative = 0.0
    f2_loss: Loss = 0.0


@dataclass(frozen=True)
class Model:
    """One network of the zoo: a checkpoint, what it looks at, and how images reach it."""

    name: FlatName
    architecture: str
    group: str
    image_size: Annotated[int, between(8, 4096, "a whole number from 8 to 4096")]
    mean: Annotated[tuple[float, ...], Triple]
    std: Annotated[
        tuple[float, ...],
        Triple,
        Rule("three numbers above 0, one a channel", lambda numbers: all(number > 0 for number in numbers)),
    ]
    interpolation: Interpolation
    resize: Resize = Resize()
    tiles: Tiles | None = None
    views: Annotated[
        tuple[View, ...],
        Rule("at least one view, each once", lambda views: len(views) > 0 and len(set(views)) == len(views)),
    ] = ("identity", "hflip")
    fold: int | None = None
    checkpoint: FileEntry | None = None
    out_of_fold: OutOfFold | None = None
    onnx: Mapping[Precision, OnnxEntry] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Stacker:
    """A second model, over the scores of members: the models of one recipe, one a fold (inference/members.py).

    `cnn` sees an image's scores by member and label, `trees` one pair of image and label. `group`: whose labels it
    scores. `members`: in the order that it was fitted with. `top`: of `trees`, how many labels of each member become
    pairs; the others keep the blend's score. `parity`: largest difference to what it was exported from.
    """

    name: Annotated[FlatName, Rule(f"a name other than '{BLEND}'", lambda name: name != BLEND)]
    kind: Literal["cnn", "trees"]
    group: str
    members: Annotated[tuple[str, ...], Rule("at least one member", lambda names: len(names) > 0)]
    onnx: FileEntry
    parity: NotNegative
    top: Count = 0


@dataclass(frozen=True)
class Ensemble:
    """How many scores become one; of all weights only the ratios count.

    `weights`: for each group, the weight of each model that covers it in the blend. `mix`: for each group, the weight
    of the blend and of each stacker; empty for the blend alone. `values`: for each model and view, what the
    out-of-fold F2 of the whole loses without it.
    """

    weights: Mapping[str, Mapping[str, NotNegative]]
    stackers: tuple[Stacker, ...] = ()
    mix: Mapping[str, Mapping[str, NotNegative]] = dataclasses.field(default_factory=dict)
    values: Mapping[str, Mapping[View, float]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Runtime:
    """Limits of the kernel, and the script and wheels of the bundle.

    `time_limit` in seconds, `batch_size` in images; an image that has more than `max_pixels`, or is not decoded after
    `image_seconds`, counts as unreadable. `f2_loss`: the most that a model may lose to a precision that is faster.
    `draft`: decode a JPEG reduced where so many times what models resize it to is left; None for never.
    """

    time_limit: Annotated[int, between(1, 10**6, "seconds, from 1 to 1000000")] = 9 * 3600
    batch_size: Annotated[int, between(1, 4096, "a whole number from 1 to 4096")] = 32
    image_seconds: Annotated[float, between(0.001, 3600, "seconds, from 0.001 to 3600")] = 20.0
    f2_loss: Probability = 0.003
    max_pixels: Annotated[int, between(1, MOST_PIXELS, f"a whole number from 1 to {MOST_PIXELS}")] = MAX_PIXELS
    draft: Annotated[float, between(1, 1000, "a number from 1 to 1000, or null")] | None = None
    script: FileEntry | None = None
    wheels: tuple[FileEntry, ...] = ()


AnyFile = FileEntry | LabelsEntry | OnnxEntry


@dataclass(frozen=True)
class Manifest:
    """The whole declaration; every cross-reference in it holds."""

    labels: LabelsEntry
    models: tuple[Model, ...]
    ensemble: Ensemble
    decision: Decision
    runtime: Runtime = Runtime()
    schema_version: Literal[1] = 1

    def groups_of(self, model: Model) -> tuple[str, ...]:
        """The groups whose labels the model's head covers."""
        return tuple(self.labels.groups) if model.group == ALL else (model.group,)


def name_member(model: Model) -> str:
    """What the models of one recipe share: the name without the fold at its end, _f0, _f1."""
    return model.name if model.fold is None else model.name.removesuffix(f"_f{model.fold}")


def list_members(models: Iterable[Model]) -> dict[str, list[Model]]:
    """The models of each member of the ensemble, in their order: the networks of one recipe, which differ by fold."""
    members: dict[str, list[Model]] = {}
    for model in models:
        members.setdefault(name_member(model), []).append(model)
    return members


def read_manifest(path: Path) -> Manifest:
    """The manifest at `path`, fully checked but for the files that it names (see verify_files).

    Raises ManifestError naming the file and the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ManifestError(
            f"{path}: no such file; name the manifest, or start one with `build_kernel.py add`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read: {error}") from error
    try:
        return parse_manifest(load_json(text))
    except ManifestError as error:
        raise ManifestError(f"{path.name}: {error}") from error


def parse_manifest(document: object) -> Manifest:
    """A Manifest from parsed JSON; raises ManifestError naming the key."""
    manifest: Manifest = parse_record(Manifest, document)
    check_references(manifest)
    return manifest


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write the manifest, whole or not at all; read_manifest gives it back.

    Raises ManifestError naming the key where read_manifest would refuse it.
    """
    text = json.dumps(dataclasses.asdict(manifest), indent=2, ensure_ascii=False) + "\n"
    parse_manifest(load_json(text))
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_references(manifest: Manifest) -> None:
    """Names that refer to one another must do so, and every group must have its weights and its decision.

    Raises ManifestError naming the key.
    """
    groups = manifest.labels.groups
    models: dict[str, Model] = {}
    for index, model in enumerate(manifest.models):
        if model.name in models:
            first = list(models).index(model.name)
            raise ManifestError(
                f"`models[{index}].name`: {model.name!r} is the name of models[{first}] too; rename one"
            )
        if model.group not in (ALL, *groups):
            raise refuse(
                f"models[{index}].group", model.group, f"'{ALL}' or a group of `labels.groups`: {', '.join(groups)}"
            )
        models[model.name] = model
    for section, given in (
        ("ensemble.weights", manifest.ensemble.weights),
        ("decision.groups", manifest.decision.groups),
    ):
        for group in groups:
            if group not in given:
                raise ManifestError(f"`{section}.{group}`: missing; every group of `labels.groups` needs one")
        for group in given:
            if group not in groups:
                raise ManifestError(f"`{section}.{group}`: no such group in `labels.groups`: {', '.join(groups)}")
    for group, weights in manifest.ensemble.weights.items():
        for name in weights:
            if name not in models:
                raise ManifestError(f"`ensemble.weights.{group}.{name}`: no model of that name in `models`")
            if group not in manifest.groups_of(models[name]):
                raise ManifestError(
                    f"`ensemble.weights.{group}.{name}`: this model covers {models[name].group!r}; remove it"
                )
    check_second_stage(manifest)
    check_decision(manifest.decision, groups)


def check_second_stage(manifest: Manifest) -> None:
    """Stackers, their members, the mix and the values refer to what there is; raises ManifestError."""
    groups = manifest.labels.groups
    members = list_members(manifest.models)
    for name, models in members.items():
        if len({model.group for model in models}) > 1:
            raise ManifestError(
                f"`models`: {', '.join(model.name for model in models)} are the folds of {name} and cover "
                f"{' and '.join(model.group for model in models)}; wanted one group, or rename one"
            )
    covers: dict[str, str] = {}
    for index, stacker in enumerate(manifest.ensemble.stackers):
        key = f"ensemble.stackers[{index}]"
        if stacker.name in covers:
            raise ManifestError(f"`{key}.name`: {stacker.name!r} is the name of another stacker too; rename one")
        covers[stacker.name] = stacker.group
        if stacker.group not in (ALL, *groups):
            raise refuse(f"{key}.group", stacker.group, f"'{ALL}' or a group of `labels.groups`: {', '.join(groups)}")
        for place, name in enumerate(stacker.members):
            if name not in members:
                raise ManifestError(
                    f"`{key}.members[{place}]`: no model {name!r} in `models`; run `build_kernel.py fit` again"
                )
    for group, weights in manifest.ensemble.mix.items():
        if group not in groups:
            raise ManifestError(f"`ensemble.mix.{group}`: no such group in `labels.groups`: {', '.join(groups)}")
        for name in weights:
            if name not in (BLEND, *covers):
                raise ManifestError(f"`ensemble.mix.{group}.{name}`: no stacker of that name in `ensemble.stackers`")
            if name != BLEND and covers[name] not in (ALL, group):
                raise ManifestError(f"`ensemble.mix.{group}.{name}`: this stacker scores {covers[name]!r}; remove it")
        if not any(weights.values()):
            raise ManifestError(f"`ensemble.mix.{group}`: every weight is 0; wanted one above 0")
    views = {model.name: model.views for model in manifest.models}
    for name, values in manifest.ensemble.values.items():
        for view in values:
            if view not in views.get(name, ()):
                raise ManifestError(f"`ensemble.values.{name}.{view}`: no model of that name and view in `models`")


def check_coverage(manifest: Manifest) -> None:
    """Every group has a model with a weight; in a zoo that is still being put together some have none.

    Raises ManifestError naming the group.
    """
    for group, weights in manifest.ensemble.weights.items():
        if not any(weight > 0 for weight in weights.values()):
            raise ManifestError(
                f"`ensemble.weights.{group}`: no model with a weight above 0 covers the group; add a model or a weight"
            )


def list_bundle_files(manifest: Manifest) -> list[tuple[str, AnyFile]]:
    """(key, entry) of each file that the kernel needs."""
    files: list[tuple[str, AnyFile]] = [("labels", manifest.labels)]
    for index, model in enumerate(manifest.models):
        files += [(f"models[{index}].onnx.{precision}", entry) for precision, entry in model.onnx.items()]
    files += [
        (f"ensemble.stackers[{index}].onnx", stacker.onnx) for index, stacker in enumerate(manifest.ensemble.stackers)
    ]
    if manifest.runtime.script:
        files.append(("runtime.script", manifest.runtime.script))
    return files + [(f"runtime.wheels[{index}]", wheel) for index, wheel in enumerate(manifest.runtime.wheels)]


def verify_files(files: Iterable[tuple[str, AnyFile]], folder: Path) -> None:
    """Each file is in `folder`, links included, and has its hash; raises ManifestError naming the key and the file."""
    for key, entry in files:
        path = folder / entry.file
        if not path.is_file():
            raise ManifestError(f"{MANIFEST_NAME}: `{key}.file`: no file {entry.file} in {folder}")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ManifestError(
                f"{MANIFEST_NAME}: `{key}.file`: {path} is a link that leads out of {folder}; put the file itself there"
            )
        found = hash_file(path)
        if found != entry.sha256:
            raise ManifestError(
                f"{MANIFEST_NAME}: `{key}.sha256`: {path} has {found[:12]}…, wanted {entry.sha256[:12]}…; "
                "the file is not the one declared: bring that one back or declare this one"
            )
