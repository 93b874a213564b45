"""The models of a zoo as those of the team: renamed, their files placed, their outputs in the team's label order."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from inference.basics.errors import ManifestError
from inference.basics.files import hash_file
from inference.manifest.file import find_file, verify_files
from inference.manifest.model import ALL, FEATURES, Factory, FileEntry, Model, OnnxEntry, OutOfFold
from inference.manifest.values import Precision
from training.merge.permute_graphs import permute_model
from training.merge.sources import Source, is_ready
from training.merge.team_folder import TeamFolder


def join_models(source: Source, team: TeamFolder, base: str) -> tuple[Model, ...]:
    """Place the files of a zoo's models; return the models as the team's manifest declares them.

    `base`: the folder of its files, '' or one that ends with /. Raises ManifestError: a file is missing or differs from
    its hash, or the order of a network's heads is unknown.
    """
    return tuple(
        join_model(model, f"models[{index}]", source, team, base)
        for index, model in enumerate(source.zoo.manifest.models)
    )


def join_model(model: Model, key: str, source: Source, team: TeamFolder, base: str) -> Model:
    """Place the files of one model; return the model of the team. `key`: its key in the zoo's manifest."""
    name, ready = source.rename(model.name), is_ready(model)
    check_heads(model, source)
    factory = None if model.factory is None or ready else join_factory(model.factory, key, source, team, base)
    named = model.factory and f"{model.factory.file}:{model.factory.function}"
    return dataclasses.replace(
        model,
        name=name,
        member=None if model.member is None else source.rename(model.member),
        architecture=f"{factory.file}:{factory.function}"
        if factory and model.architecture == named
        else model.architecture,
        factory=factory,
        label_order=() if ready else order_labels(model, source),
        checkpoint=None
        if model.checkpoint is None
        else join_file(model.checkpoint, f"{key}.checkpoint", source, team, base),
        out_of_fold=None
        if model.out_of_fold is None
        else join_out_of_fold(model, model.out_of_fold, key, source, team, base),
        onnx=join_graphs(model, name, key, source, team) if ready else {},
    )


def order_labels(model: Model, source: Source) -> tuple[int, ...]:
    """Return the team's label ids in the order of the network's outputs; empty if that is the team's order."""
    if model.group == FEATURES:
        return ()
    own, team = source.match.own, source.match.team
    given = model.label_order or tuple(own.ids[column] for column in own.columns(model.group))
    ids = source.match.translate(given)
    return () if ids == tuple(team.ids[column] for column in team.columns(model.group)) else ids


def check_heads(model: Model, source: Source) -> None:
    """Raise ManifestError for a network that may have a head per group, if the groups' labels have another order.

    Such a network returns a tuple in the order of its own labels.csv; the label order of the team's does not say which
    output is whose.
    """
    own, team = source.match.own, source.match.team
    if model.group != ALL or is_ready(model) or not (model.factory or model.layout) or len(own.groups) == 1:
        return
    if list(own.groups) != list(team.groups) or own.owners != team.owners:
        raise ManifestError(
            f"{source.zoo.path}: model {model.name} may have a head per group, and the groups stand in another order "
            "than in the first labels.csv; sort both by group in the same order"
        )


def join_file(entry: FileEntry, key: str, source: Source, team: TeamFolder, base: str) -> FileEntry:
    """Verify a file, place it below `base` and return its entry."""
    verify_files([(key, entry)], source.zoo.home)
    return FileEntry(team.place(source.zoo.home / entry.file, base + entry.file), entry.sha256)


def join_factory(factory: Factory, key: str, source: Source, team: TeamFolder, base: str) -> Factory:
    """Verify and place a factory's file; return its entry."""
    placed = join_file(FileEntry(factory.file, factory.sha256), f"{key}.factory", source, team, base)
    return dataclasses.replace(factory, file=placed.file)


def join_out_of_fold(
    model: Model, declared: OutOfFold, key: str, source: Source, team: TeamFolder, base: str
) -> OutOfFold:
    """Place out-of-fold predictions; write them with columns in the team's order where that differs."""
    ids = join_file(declared.ids, f"{key}.out_of_fold.ids", source, team, base)
    if model.group == FEATURES or source.match.is_same(model.group):
        return OutOfFold(join_file(declared.scores, f"{key}.out_of_fold.scores", source, team, base), ids)
    verify_files([(f"{key}.out_of_fold.scores", declared.scores)], source.zoo.home)
    scores = load_array(source.zoo.home / declared.scores.file, len(source.match.own.columns(model.group)))
    file, path = team.reserve(base + declared.scores.file)
    with path.open("wb") as written:
        np.save(written, scores[:, list(source.match.order(model.group))])
    return OutOfFold(FileEntry(file, hash_file(path)), ids)


def load_array(path: Path, columns: int) -> "np.ndarray[tuple[int, int], np.dtype[np.floating]]":
    """Return an array of scores, (images, columns). Raises ManifestError: it is none."""
    try:
        scores = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ManifestError(f"{path}: not an array: {error}") from error
    if scores.ndim != 2 or scores.shape[1] != columns:
        raise ManifestError(f"{path}: found {scores.shape}; wanted (images, {columns})")
    return scores  # type: ignore[no-any-return]


def join_graphs(model: Model, name: str, key: str, source: Source, team: TeamFolder) -> Mapping[Precision, OnnxEntry]:
    """Place the ONNX files of a ready-made model, with outputs in the team's order; return their entries."""
    joined: dict[Precision, OnnxEntry] = {}
    for precision, entry in model.onnx.items():
        verify_files([(f"{key}.onnx.{precision}", entry)], source.zoo.home, source.attached)
        path = find_file(entry, source.zoo.home, source.attached)
        wanted = f"{name}.onnx" if precision == "fp32" else f"{name}.{precision}.onnx"
        if model.group == FEATURES or source.match.is_same(model.group):
            joined[precision] = dataclasses.replace(entry, file=team.place(path, wanted), dataset=None)
            continue
        file, target = team.reserve(wanted)
        permute_model(path, target, source.match.order(model.group))
        joined[precision] = dataclasses.replace(entry, file=file, sha256=hash_file(target), dataset=None)
    return joined
