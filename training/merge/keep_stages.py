"""The second stages of several zoos, kept as they are, as parts of one mix: everything in it is linear."""

import dataclasses
from collections.abc import Mapping, Sequence

from inference.basics.errors import ManifestError
from inference.basics.files import hash_file
from inference.manifest.file import verify_files
from inference.manifest.model import ALL, FileEntry
from inference.manifest.records import BLEND, Ensemble, Stacker
from training.merge.permute_graphs import permute_cnn, rewrite_trees
from training.merge.sources import Source
from training.merge.team_folder import TeamFolder
from training.second_stage.stackers.export_stackers import FOLDER

Weights = dict[str, dict[str, float]]
Shares = Mapping[str, Mapping[str, float]]
"""Group -> tag of a zoo -> its weight in the mean of the second stages."""


def keep_stages(sources: Sequence[Source], shares: Shares, ensemble: Ensemble, team: TeamFolder) -> Ensemble:
    """Return `ensemble`, the combined blend, with the stackers and blends of all zoos, and the mean of their mixes.

    Places the stackers' files. Raises ManifestError: a file differs from its hash.
    """
    mix: Weights = {group: {} for group in shares}
    stackers: list[Stacker] = []
    blends: dict[str, Weights] = {}
    for source in sources:
        own = source.zoo.manifest.ensemble
        for group, weights in mix.items():
            share = shares[group].get(source.tag, 0.0)
            given = own.mix.get(group) or {BLEND: 1.0}
            for name, weight in given.items():
                if share * weight > 0:
                    weights[source.name_part(name)] = shorten(share * weight / sum(given.values()))
        stackers += [join_stacker(stacker, place, source, team) for place, stacker in enumerate(own.stackers)]
        blends |= {
            source.name_part(name): {
                group: {source.rename(model): weight for model, weight in weights.items()}
                for group, weights in given.items()
            }
            for name, given in ({BLEND: own.weights} | dict(own.blends)).items()
        }
    check_names(sources, stackers, blends)
    return dataclasses.replace(ensemble, stackers=tuple(stackers), mix=mix, blends=blends)


def share_equally(sources: Sequence[Source], groups: Sequence[str]) -> Shares:
    """Return the weights of the zoos in the mean of each group, of those that cover it."""
    shares = {}
    for group in groups:
        own = {source.tag: source.share for source in sources if source.covers(group) and source.share > 0}
        shares[group] = {tag: share / sum(own.values()) for tag, share in own.items()}
    return shares


def join_stacker(stacker: Stacker, place: int, source: Source, team: TeamFolder) -> Stacker:
    """Place a stacker's file, changed to the team's order of labels and names; return its entry."""
    verify_files([(f"ensemble.stackers[{place}].onnx", stacker.onnx)], source.zoo.home)
    renamed = dataclasses.replace(
        stacker,
        name=source.rename(stacker.name),
        members=tuple(map(source.rename, stacker.members)),
        features=tuple(map(source.rename, stacker.features)),
        blend=source.name_part(stacker.blend),
    )
    path, wanted = source.zoo.home / stacker.onnx.file, f"{FOLDER}/{renamed.name}.onnx"
    same = source.match.is_same(stacker.group)
    if stacker.kind == "trees":
        # Its features are of all labels, and it names its members.
        same = source.match.is_same(ALL) and source.match.own.owners == source.match.team.owners and not source.prefix
    if same:
        return dataclasses.replace(renamed, onnx=FileEntry(team.place(path, wanted), stacker.onnx.sha256))
    file, target = team.reserve(wanted)
    if stacker.kind == "cnn":
        permute_cnn(path, target, source.match.order(stacker.group))
    else:
        rewrite_trees(path, target, stacker, renamed, source.zoo.manifest, source.match)
    return dataclasses.replace(renamed, onnx=FileEntry(file, hash_file(target)))


def check_names(sources: Sequence[Source], stackers: Sequence[Stacker], blends: Mapping[str, Weights]) -> None:
    """Raise ManifestError if a zoo's blend would have the name of another part."""
    names = [*(stacker.name for stacker in stackers), *blends]
    parts = sum(1 + len(source.zoo.manifest.ensemble.blends) for source in sources)
    if len(set(names)) < len(names) or len(blends) < parts:
        raise ManifestError(
            f"merge: two parts of the second stages have one name, of: {', '.join(sorted(names))}; choose other "
            "--prefixes"
        )


def shorten(weight: float) -> float:
    """Return a weight with nine digits, which is more than float32 keeps."""
    return float(f"{weight:.9g}")
