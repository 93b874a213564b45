"""Merge the zoos and bundles of a team into one zoo, which `ensemble`, `export` and `pack` take like any other."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inference.basics.errors import OptionError, TrainingError
from inference.manifest.decision import Decision
from inference.manifest.file import MANIFEST_NAME, write_manifest
from inference.manifest.model import Model
from inference.manifest.records import Ensemble, Manifest, remove_stackers
from training.merge.describe import describe_common, describe_mean, describe_models
from training.merge.fit_shares import fit_mean, gather_common
from training.merge.join_models import join_models
from training.merge.keep_stages import keep_stages, share_equally, shorten
from training.merge.match_labels import merge_exchanged
from training.merge.sources import Source, open_sources
from training.merge.team_folder import TeamFolder, build_folder
from training.second_stage.judge import Rules, fit_all_rules
from training.second_stage.outcome.declare import declare_decision, write_scores
from training.second_stage.stackers.export_stackers import FOLDER
from zoo.fitted_for import hash_fitted
from zoo.tables.out_of_fold import Zoo, pool_predictions
from zoo.tables.train_table import Table, read_table


@dataclass(frozen=True)
class MergeSettings:
    """Arguments of the command `merge`."""

    manifests: Sequence[Path]
    """Yours first: its task, labels.csv, prior and limits hold."""
    out: Path
    train: Path | None = None
    weights: Sequence[float] | None = None
    """One per manifest; None: equal, or with `keep_stages` fitted."""
    prefixes: Sequence[str] | None = None
    """One per manifest; None: the folder's name where names are equal."""
    keep_stages: bool = False
    """Keep the second stages instead of the blend alone."""
    copy: bool = False
    """Copy files instead of linking them."""
    attached: Mapping[str, Path] = field(default_factory=dict)
    """OWNER/SLUG -> local copy of a dataset that has files of a bundle."""


def merge_zoos(settings: MergeSettings) -> Manifest:
    """Write the folder `out` with the team's manifest and the files of all zoos; print the tables.

    Raises OptionError, ManifestError, LabelsError, TableError, TrainingError or OutputError, and then leaves no folder.
    """
    sources = open_sources(settings.manifests, settings.prefixes, settings.weights, settings.attached)
    mine = sources[0].zoo
    table = read_table(settings.train, mine.labels, mine.manifest.task) if settings.train else None
    if settings.keep_stages:
        check_stages(sources, settings)
    print(describe_models(sources, table))
    print(describe_common(sources, table))
    with build_folder(settings.out) as folder:
        team = TeamFolder(folder, copy=settings.copy)
        manifest = join_zoos(sources, team)
        if settings.keep_stages:
            manifest = keep_all(sources, manifest, team, table, fit=settings.weights is None)
        elif any(source.zoo.manifest.ensemble.stackers for source in sources):
            print("the stackers are left out; --keep-stages keeps them")
        write_manifest(manifest, folder / MANIFEST_NAME)
    print(f"{settings.out / MANIFEST_NAME}: {len(manifest.models)} models")
    if not manifest.ensemble.mix:
        print(f"the decision is that of {mine.path} until `build_kernel.py ensemble` fits one")
    return manifest


def check_stages(sources: Sequence[Source], settings: MergeSettings) -> None:
    """Raise OptionError if nothing says how much each second stage weighs."""
    bundles = [source for source in sources if source.is_bundle]
    if settings.weights is None and bundles:
        raise OptionError(
            f"--weights: missing; {bundles[0].zoo.path} is a bundle without out-of-fold predictions, so its weight "
            "cannot be fitted; give one weight per manifest, such as --weights 0.7 0.3"
        )
    if settings.weights is None and settings.train is None:
        raise OptionError("--keep-stages: wanted --train train.csv too, to fit the weights, or --weights to give them")


def join_zoos(sources: Sequence[Source], team: TeamFolder) -> Manifest:
    """Place the files of all zoos and return the team's manifest: the combined blend, decided as the first zoo's."""
    mine = sources[0].zoo
    labels = team.place(mine.home / mine.manifest.labels.file, mine.manifest.labels.file)
    models: list[Model] = []
    for place, source in enumerate(sources):
        models += join_models(source, team, f"{source.tag}/" if place else "")
    blend = remove_stackers(mine.manifest)
    exchanged = merge_exchanged([(source.zoo, source.match) for source in sources])
    return dataclasses.replace(
        blend,
        labels=dataclasses.replace(mine.manifest.labels, file=labels, exchanged=exchanged),
        models=tuple(models),
        ensemble=combine_blends(sources),
        runtime=dataclasses.replace(blend.runtime, script=None, wheels=()),
    )


def combine_blends(sources: Sequence[Source]) -> Ensemble:
    """Return the blend of all models: the weights of a zoo add up to its share in each group."""
    weights: dict[str, dict[str, float]] = {}
    for group in sources[0].zoo.manifest.labels.groups:
        weights[group] = {}
        for source in sources:
            given = source.zoo.manifest.ensemble.weights[group]
            total = sum(given.values())
            for name, weight in given.items():
                weights[group][source.rename(name)] = shorten(source.share * weight / total) if total else 0.0
    values = {
        source.rename(name): {view: shorten(source.share * value) for view, value in given.items()}
        for source in sources
        for name, given in source.zoo.manifest.ensemble.values.items()
    }
    ranks = {
        source.rename(name): scale for source in sources for name, scale in source.zoo.manifest.ensemble.ranks.items()
    }
    return Ensemble(weights, values=values, ranks=ranks)


def keep_all(
    sources: Sequence[Source], manifest: Manifest, team: TeamFolder, table: Table | None, *, fit: bool
) -> Manifest:
    """Return the manifest with the second stages of all zoos, and a decision fitted to their mean where that can be.

    `fit`: fit the weights of the zoos too.
    """
    mine, task = sources[0].zoo, manifest.task
    shares = share_equally(sources, list(mine.labels.groups))
    if table is None or not (fit or all(source.zoo.manifest.ensemble.out_of_fold for source in sources)):
        print(f"the weights of the second stages are those given; the decision is that of {mine.path}, as nothing is ")
        print("fitted without --train and out-of-fold scores of all second stages")
        return declare_stage(manifest, keep_stages(sources, shares, manifest.ensemble, team), mine.manifest.decision)
    common = gather_common(sources, table)
    found = fit_mean(common, sources, None if fit else shares, mine.labels, task)
    print(describe_mean(found, len(common.rows), task))
    ensemble = keep_stages(sources, found.shares, manifest.ensemble, team)
    rules = fit_fallback(dataclasses.replace(manifest, ensemble=ensemble), team.folder, table, mine)
    (team.folder / FOLDER).mkdir(exist_ok=True)
    written = write_scores(found.scores, common.rows, table, team.folder / FOLDER, task)
    ensemble = dataclasses.replace(ensemble, out_of_fold=written)
    chosen = found.rules[found.rule]
    decision = declare_decision(mine.manifest, chosen, rules or found.rules, found.rule, found.scores)
    return declare_stage(manifest, ensemble, decision)


def declare_stage(manifest: Manifest, ensemble: Ensemble, decision: Decision) -> Manifest:
    """Return the manifest with a second stage that fits its models."""
    ensemble = dataclasses.replace(ensemble, fitted_for=hash_fitted(manifest))
    return dataclasses.replace(manifest, ensemble=ensemble, decision=decision)


def fit_fallback(manifest: Manifest, home: Path, table: Table, mine: Zoo) -> Rules | None:
    """Return the rules of the combined blend, for a run in which a stacker fails; None without its predictions."""
    try:
        rows, scores = pool_predictions(manifest, home, mine.labels, table.ids)
    except TrainingError:
        return None
    return fit_all_rules(scores, table.targets[rows], mine.labels, manifest.task)
