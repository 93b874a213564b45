"""The labels of two zoos, matched by name, whatever their order and ids."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from inference.basics.errors import ManifestError
from inference.manifest.labels import Labels
from inference.manifest.values import Mirror
from zoo.tables.out_of_fold import Zoo

SHOWN = 5
Pairs = Mapping[Mirror, tuple[tuple[int, ...], ...]]


@dataclass(frozen=True)
class LabelMatch:
    """How the labels of a zoo become those of the team."""

    own: Labels
    """Of the zoo."""
    team: Labels

    @property
    def ids(self) -> dict[int, int]:
        """The team's id of each label id of the zoo."""
        team = dict(zip(self.team.names, self.team.ids, strict=True))
        return {label: team[name] for label, name in zip(self.own.ids, self.own.names, strict=True)}

    def order(self, group: str) -> tuple[int, ...]:
        """Return, for each label of a group in the team's order, its place in the zoo's order of the group."""
        places = {self.own.names[column]: place for place, column in enumerate(self.own.columns(group))}
        return tuple(places[self.team.names[column]] for column in self.team.columns(group))

    def is_same(self, group: str) -> bool:
        """Return whether the labels of a group have the same order in both."""
        return self.order(group) == tuple(range(len(self.team.columns(group))))

    def translate(self, ids: Iterable[int]) -> tuple[int, ...]:
        """Return the team's ids of label ids of the zoo."""
        known = self.ids
        return tuple(known[label] for label in ids)


def match_labels(team: Zoo, zoo: Zoo) -> LabelMatch:
    """Match the labels of `zoo` with those of `team`. Raises ManifestError: other groups, or other names."""
    found, wanted = dict(zoo.manifest.labels.groups), dict(team.manifest.labels.groups)
    if found != wanted:
        raise ManifestError(f"{zoo.path}: `labels.groups`: found {found}; wanted {wanted}, as in {team.path}")
    more, fewer = set(zoo.labels.names) - set(team.labels.names), set(team.labels.names) - set(zoo.labels.names)
    if more or fewer:
        raise ManifestError(
            f"{zoo.path}: the labels differ from those of {team.path}: only here {_list(more)}; only there "
            f"{_list(fewer)}; train both on the same labels"
        )
    return LabelMatch(zoo.labels, team.labels)


def merge_exchanged(zoos: Iterable[tuple[Zoo, LabelMatch]]) -> dict[Mirror, tuple[tuple[int, ...], ...]]:
    """Return the pairs of labels that views exchange in any of the zoos, in the team's ids, ascending.

    Raises ManifestError: two zoos pair a label with different labels.
    """
    partners: dict[tuple[Mirror, int], tuple[int, Zoo]] = {}
    for zoo, match in zoos:
        names = dict(zip(match.team.ids, match.team.names, strict=True))
        for mirror, pairs in zoo.manifest.labels.exchanged.items():
            for one, two in map(match.translate, pairs):
                for label, partner in ((one, two), (two, one)):
                    known, owner = partners.setdefault((mirror, label), (partner, zoo))
                    if known != partner:
                        raise ManifestError(
                            f"{zoo.path}: `labels.exchanged.{mirror}`: found {names[label]!r} with {names[partner]!r}; "
                            f"wanted {names[known]!r}, as in {owner.path}"
                        )
    merged: dict[Mirror, tuple[tuple[int, ...], ...]] = {}
    for (mirror, label), (partner, _) in sorted(partners.items(), key=lambda item: item[0]):
        if label < partner:
            merged[mirror] = (*merged.get(mirror, ()), (label, partner))
    return merged


def _list(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return (
        ", ".join(ordered[:SHOWN]) + (f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else "")
    ) or "none"
