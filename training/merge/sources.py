"""The zoos to merge: what each is called in the team's zoo, how much it weighs, and how its labels match."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.basics.errors import OptionError
from inference.manifest.model import Model, list_members
from inference.manifest.records import BLEND
from training.merge.match_labels import LabelMatch, match_labels
from training.merge.match_tasks import check_tasks
from zoo.tables.out_of_fold import Zoo, open_zoo


@dataclass(frozen=True)
class Source:
    """One of the zoos to merge."""

    zoo: Zoo
    tag: str
    """Its name in the table, the folder of its files and the prefix of its blend."""
    prefix: str
    """Before the names of its models, members and stackers; empty: they stay as they are."""
    share: float
    """Its weight in the team; those of all zoos add up to 1."""
    match: LabelMatch
    attached: Mapping[str, Path]
    """OWNER/SLUG -> folder of the datasets that have further files of its models."""

    def rename(self, name: str) -> str:
        """Return the team's name of one of its models, members, stackers or blends."""
        return self.prefix + name

    def name_part(self, name: str) -> str:
        """Return the team's name of a part of its mix: its blend is one of several."""
        return f"{self.tag}_{BLEND}" if name == BLEND else self.rename(name)

    @property
    def is_bundle(self) -> bool:
        """Return whether its models are ONNX files without out-of-fold predictions."""
        return any(is_ready(model) for model in self.zoo.manifest.models)

    def covers(self, group: str) -> bool:
        """Return whether one of its models has a weight in the blend of a group."""
        return sum(self.zoo.manifest.ensemble.weights[group].values()) > 0


def is_ready(model: Model) -> bool:
    """Return whether a model came in a bundle: as ONNX files, without a checkpoint."""
    return model.checkpoint is None and "fp32" in model.onnx


def open_sources(
    paths: Sequence[Path],
    prefixes: Sequence[str] | None,
    weights: Sequence[float] | None,
    attached: Mapping[str, Path],
) -> list[Source]:
    """Read the zoos and check that they suit the first one. Raises ManifestError, LabelsError or OptionError."""
    if len(paths) < 2:
        raise OptionError("merge: found 1 manifest; wanted at least 2: yours and a teammate's")
    if len({path.resolve() for path in paths}) < len(paths):
        raise OptionError(f"merge: found {', '.join(map(str, paths))}; wanted different manifests")
    for option, given in (("--prefixes", prefixes), ("--weights", weights)):
        if given is not None and len(given) != len(paths):
            raise OptionError(f"{option}: found {len(given)} values; wanted {len(paths)}, one per manifest")
    shares = [1.0] * len(paths) if weights is None else list(weights)
    if not (min(shares) >= 0 and 0 < sum(shares) < math.inf):
        raise OptionError(f"--weights: found {' '.join(map(str, shares))}; wanted numbers from 0, one above 0")
    zoos = [open_zoo(path) for path in paths]
    matches = []
    for zoo in zoos:
        check_tasks(zoos[0], zoo)
        matches.append(match_labels(zoos[0], zoo))
    tags = choose_tags(paths)
    chosen = choose_prefixes(zoos, tags) if prefixes is None else [clean(one) for one in prefixes]
    taken: dict[str, Path] = {}
    for zoo, prefix in zip(zoos, chosen, strict=True):
        for name in sorted(list_names(zoo)):
            first = taken.setdefault(prefix + name, zoo.path)
            if first != zoo.path:
                raise OptionError(
                    f"--prefixes: {prefix + name!r} names a part of {first} and of {zoo.path}; choose other prefixes"
                )
    return [
        Source(zoo, tag, prefix, share / sum(shares), match, attached)
        for zoo, tag, prefix, share, match in zip(zoos, tags, chosen, shares, matches, strict=True)
    ]


def choose_tags(paths: Sequence[Path]) -> list[str]:
    """Return a different name for each zoo: that of its folder, with a number where two are equal."""
    tags: list[str] = []
    for path in paths:
        folder = path.resolve().parent
        # A packed dataset lies in a folder `dataset`, which says nothing.
        name = clean(folder.parent.name if folder.name == "dataset" else folder.name) or "zoo"
        free = (tag for tag in (name, *(f"{name}{number}" for number in range(2, len(paths) + 1))) if tag not in tags)
        tags.append(next(free))
    return tags


def choose_prefixes(zoos: Sequence[Zoo], tags: Sequence[str]) -> list[str]:
    """Return the prefix of each zoo: its tag if one of its names is that of an earlier zoo's part, else none."""
    taken: set[str] = set()
    prefixes = []
    for zoo, tag in zip(zoos, tags, strict=True):
        names = list_names(zoo)
        prefix = f"{tag}_" if taken & names else ""
        prefixes.append(prefix)
        taken |= {prefix + name for name in names}
    return prefixes


def list_names(zoo: Zoo) -> set[str]:
    """Return the names of a zoo's models, members, stackers and further blends."""
    manifest = zoo.manifest
    stackers = {stacker.name for stacker in manifest.ensemble.stackers}
    models = {model.name for model in manifest.models}
    return models | set(list_members(manifest.models)) | stackers | set(manifest.ensemble.blends)


def clean(name: str) -> str:
    """Return a text with only the characters of a FlatName."""
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip(".")
