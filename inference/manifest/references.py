"""Checks across the entries of a manifest."""

from collections.abc import Collection, Mapping

from inference.basics.errors import ManifestError
from inference.manifest.decision import Decision
from inference.manifest.model import ALL, FEATURES, Model, list_members
from inference.manifest.records import BLEND, Manifest
from inference.manifest.schema import refuse
from inference.manifest.task import Task
from inference.manifest.task_checks import check_task, describe_answers, list_decision_rules
from inference.manifest.values import MAX_RESIZED_PIXELS, TURNS, split_view


def check_decision(decision: Decision, task: Task, groups: Collection[str]) -> None:
    """Check that the rule suits the task, and its numbers. Raises ManifestError naming the key."""
    suited = list_decision_rules(task)
    if decision.rule not in suited:
        wanted = f"{' or '.join(map(repr, suited))} for {describe_answers(task)}"
        raise refuse("decision.rule", decision.rule, wanted)
    if task.selects_labels and not any(decision.prior.values()):
        raise refuse("decision.prior", decision.prior, "at least one label id in all")
    for section, given in (("calibration", decision.calibration), ("fallback", decision.fallback)):
        wanted_groups = set(groups) if given or (section, decision.rule) == ("calibration", "expected_f") else set()
        if set(given) != wanted_groups:
            raise ManifestError(
                f"`decision.{section}`: found {', '.join(given) or 'no group'}; wanted every group of `labels.groups`"
            )
    for group, calibration in decision.calibration.items():
        if len(calibration.scores) != len(calibration.chances):
            raise ManifestError(
                f"`decision.calibration.{group}`: found {len(calibration.scores)} scores and "
                f"{len(calibration.chances)} probabilities; wanted equal numbers"
            )
    for group, rule in decision.groups.items():
        if rule.maximum < max(rule.minimum, 1):
            raise refuse(f"decision.groups.{group}.maximum", rule.maximum, "at least 1 and at least `minimum`")


def check_references(manifest: Manifest) -> None:
    """Check that every name refers to an existing entry and that every group has weights and a decision.

    Raises ManifestError naming the key.
    """
    groups = manifest.labels.groups
    models: dict[str, Model] = {}
    for index, model in enumerate(manifest.models):
        if model.name in models:
            first = list(models).index(model.name)
            raise ManifestError(
                f"`models[{index}].name`: {model.name!r} is also the name of models[{first}]; rename one"
            )
        check_model(model, f"models[{index}]", manifest)
        models[model.name] = model
    check_members(manifest)
    check_task(manifest.task, groups)
    if manifest.runtime.keep_top is not None and manifest.task.type != "multiclass":
        wanted = f"null, as `task.type` is {manifest.task.type}"
        raise refuse("runtime.keep_top", manifest.runtime.keep_top, wanted)
    needed = manifest.task.selects_labels
    for section, given, is_needed in (
        ("ensemble.weights", manifest.ensemble.weights, True),
        *((f"ensemble.blends.{name}", given, True) for name, given in manifest.ensemble.blends.items()),
        ("decision.groups", manifest.decision.groups, needed),
        ("decision.prior", manifest.decision.prior, needed),
    ):
        for group in groups:
            if group not in given and is_needed:
                raise ManifestError(f"`{section}.{group}`: missing; every group of `labels.groups` needs one")
        for group in given:
            if group not in groups:
                raise ManifestError(f"`{section}.{group}`: no such group in `labels.groups`: {', '.join(groups)}")
    check_weights(manifest, models)
    check_second_stage(manifest)
    check_decision(manifest.decision, manifest.task, groups)
    for name in manifest.ensemble.ranks:
        if name not in models:
            raise ManifestError(f"`ensemble.ranks.{name}`: no model of that name in `models`")


def check_weights(manifest: Manifest, models: Mapping[str, Model]) -> None:
    """Check that the weights of every blend are of models that cover the group. Raises ManifestError naming the key."""
    blends = {f"blends.{name}": weights for name, weights in manifest.ensemble.blends.items()}
    for key, given in {"weights": manifest.ensemble.weights, **blends}.items():
        for group, weights in given.items():
            for name in weights:
                if name not in models:
                    raise ManifestError(f"`ensemble.{key}.{group}.{name}`: no model of that name in `models`")
                if group not in manifest.groups_of(models[name]):
                    raise ManifestError(
                        f"`ensemble.{key}.{group}.{name}`: this model covers {models[name].group!r}; remove its weight"
                    )


def check_model(model: Model, key: str, manifest: Manifest) -> None:
    """Check that the properties of a model at `key` suit one another. Raises ManifestError naming the key."""
    groups, (height, width) = manifest.labels.groups, model.size
    if model.group not in (ALL, FEATURES, *groups):
        wanted = f"'{ALL}', '{FEATURES}' or a group of `labels.groups`: {', '.join(groups)}"
        raise refuse(f"{key}.group", model.group, wanted)
    if (model.group == FEATURES) != (model.outputs > 0):
        wanted = "the number of outputs" if model.group == FEATURES else "0: one output per label of the group"
        raise refuse(f"{key}.outputs", model.outputs, wanted)
    if len(model.mean) != len(model.std):
        raise refuse(f"{key}.std", model.std, f"{len(model.mean)} numbers, as `mean` has")
    if model.factory and model.layout:
        raise refuse(f"{key}.layout", model.layout, "null: the network comes from `factory`")
    if "geometric" in (model.merge, model.tiles and model.tiles.merge) and not manifest.is_bounded(model):
        which = "merge" if model.merge == "geometric" else "tiles.merge"
        raise refuse(f"{key}.{which}", "geometric", "'mean' or 'maximum': the scores are numbers, not probabilities")
    for view in model.views:
        parts = split_view(view)
        factor = parts.scale / 100 / model.resize.percentage
        if height * factor * width * factor > MAX_RESIZED_PIXELS:
            raise ManifestError(
                f"`{key}.views`: {view} resizes images to {height * factor:.0f}x{width * factor:.0f}; wanted at most "
                f"{MAX_RESIZED_PIXELS // 10**6} megapixels; raise `resize.percentage` or lower the scale"
            )
        if parts.corner and model.resize.percentage == 1:
            raise ManifestError(
                f"`{key}.views`: found {view}; wanted `resize.percentage` below 1, so that the resized image is larger "
                "than the network's input and has corners"
            )
        if parts.orientation in TURNS and height != width:
            raise ManifestError(f"`{key}.views`: found {view}; wanted a square `image_size`, not {height}x{width}")
        if parts.orientation in TURNS and any(manifest.labels.exchanged.values()):
            raise ManifestError(
                f"`{key}.views`: found {view}; wanted a view that does not turn left into top, because "
                "`labels.exchanged` has labels that depend on the side"
            )


def check_members(manifest: Manifest) -> None:
    """Check that models of one member are folds of the same network. Raises ManifestError naming them."""
    for name, models in list_members(manifest.models).items():
        for what, values in (
            ("cover", [model.group for model in models]),
            ("are", [model.architecture for model in models]),
            ("see", ["x".join(map(str, model.size)) for model in models]),
        ):
            if len(set(values)) > 1:
                raise ManifestError(
                    f"`models`: {', '.join(model.name for model in models)} are folds of the member {name} but "
                    f"{what} {' and '.join(dict.fromkeys(values))}; wanted the same; give one another `member`"
                )
        folds: dict[int | None, str] = {}
        for model in models:
            first = folds.setdefault(model.fold, model.name)
            if first != model.name:
                which = "without a fold" if model.fold is None else f"fold {model.fold}"
                raise ManifestError(
                    f"`models`: {first} and {model.name} of the member {name} are both {which}; "
                    "give one another `member` or `fold`"
                )


def check_second_stage(manifest: Manifest) -> None:
    """Check the groups and names in stackers, blends, mix and values. Raises ManifestError naming the key."""
    groups = manifest.labels.groups
    members = list_members(manifest.models)
    blends = (BLEND, *manifest.ensemble.blends)
    covers: dict[str, str] = {}
    for index, stacker in enumerate(manifest.ensemble.stackers):
        key = f"ensemble.stackers[{index}]"
        if stacker.name in (*covers, *blends):
            raise ManifestError(f"`{key}.name`: {stacker.name!r} is also the name of another part; rename one")
        if stacker.blend not in blends:
            raise refuse(f"{key}.blend", stacker.blend, f"one of: {', '.join(blends)}")
        covers[stacker.name] = stacker.group
        if stacker.group not in (ALL, *groups):
            raise refuse(f"{key}.group", stacker.group, f"'{ALL}' or a group of `labels.groups`: {', '.join(groups)}")
        for field, names, is_features in (("members", stacker.members, False), ("features", stacker.features, True)):
            for place, name in enumerate(names):
                if name not in members or (members[name][0].group == FEATURES) != is_features:
                    which = f"member {name!r} of group '{FEATURES}'" if is_features else f"member {name!r} with scores"
                    raise ManifestError(
                        f"`{key}.{field}[{place}]`: no {which} in `models`; run `build_kernel.py ensemble` again"
                    )
    for group, weights in manifest.ensemble.mix.items():
        if group not in groups:
            raise ManifestError(f"`ensemble.mix.{group}`: no such group in `labels.groups`: {', '.join(groups)}")
        for name in weights:
            if name not in (*blends, *covers):
                raise ManifestError(f"`ensemble.mix.{group}.{name}`: no stacker of that name in `ensemble.stackers`")
            if name in covers and covers[name] not in (ALL, group):
                raise ManifestError(
                    f"`ensemble.mix.{group}.{name}`: this stacker scores {covers[name]!r}; remove its weight"
                )
        if not any(weights.values()):
            raise ManifestError(f"`ensemble.mix.{group}`: found only weights of 0; wanted one above 0")
    views = {model.name: model.views for model in manifest.models}
    for name, values in manifest.ensemble.values.items():
        for view in values:
            if view not in views.get(name, ()):
                raise ManifestError(f"`ensemble.values.{name}.{view}`: no model of that name and view in `models`")


def check_coverage(manifest: Manifest) -> None:
    """Check that every group has a model with a weight above 0; an unfinished zoo may have groups without one.

    Raises ManifestError naming the group.
    """
    for group, weights in manifest.ensemble.weights.items():
        if not any(weight > 0 for weight in weights.values()):
            raise ManifestError(
                f"`ensemble.weights.{group}`: no model with a weight above 0 covers the group; add a model or a weight"
            )
