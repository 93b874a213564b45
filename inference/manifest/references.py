"""Checks across the entries of a manifest."""

from collections.abc import Collection

from inference.basics.errors import ManifestError
from inference.manifest.decision import Decision
from inference.manifest.records import ALL, BLEND, Manifest, Model, list_members
from inference.manifest.schema import refuse
from inference.manifest.task import Task
from inference.manifest.task_checks import check_task, describe_answers, list_decision_rules


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
        if model.group not in (ALL, *groups):
            raise refuse(
                f"models[{index}].group", model.group, f"'{ALL}' or a group of `labels.groups`: {', '.join(groups)}"
            )
        models[model.name] = model
    check_task(manifest.task, groups)
    if manifest.runtime.keep_top is not None and manifest.task.type != "multiclass":
        wanted = f"null, as `task.type` is {manifest.task.type}"
        raise refuse("runtime.keep_top", manifest.runtime.keep_top, wanted)
    needed = manifest.task.selects_labels
    for section, given, is_needed in (
        ("ensemble.weights", manifest.ensemble.weights, True),
        ("decision.groups", manifest.decision.groups, needed),
        ("decision.prior", manifest.decision.prior, needed),
    ):
        for group in groups:
            if group not in given and is_needed:
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
                    f"`ensemble.weights.{group}.{name}`: this model covers {models[name].group!r}; remove its weight"
                )
    check_second_stage(manifest)
    check_decision(manifest.decision, manifest.task, groups)
    for name in manifest.ensemble.ranks:
        if name not in models:
            raise ManifestError(f"`ensemble.ranks.{name}`: no model of that name in `models`")


def check_second_stage(manifest: Manifest) -> None:
    """Check the groups and names in stackers, mix and values. Raises ManifestError naming the key."""
    groups = manifest.labels.groups
    members = list_members(manifest.models)
    for name, models in members.items():
        if len({model.group for model in models}) > 1:
            raise ManifestError(
                f"`models`: {', '.join(model.name for model in models)} are folds of {name} but cover "
                f"{' and '.join(model.group for model in models)}; wanted one group; rename a model"
            )
    covers: dict[str, str] = {}
    for index, stacker in enumerate(manifest.ensemble.stackers):
        key = f"ensemble.stackers[{index}]"
        if stacker.name in covers:
            raise ManifestError(f"`{key}.name`: {stacker.name!r} is also the name of another stacker; rename one")
        covers[stacker.name] = stacker.group
        if stacker.group not in (ALL, *groups):
            raise refuse(f"{key}.group", stacker.group, f"'{ALL}' or a group of `labels.groups`: {', '.join(groups)}")
        for place, name in enumerate(stacker.members):
            if name not in members:
                raise ManifestError(
                    f"`{key}.members[{place}]`: no model {name!r} in `models`; run `build_kernel.py ensemble` again"
                )
    for group, weights in manifest.ensemble.mix.items():
        if group not in groups:
            raise ManifestError(f"`ensemble.mix.{group}`: no such group in `labels.groups`: {', '.join(groups)}")
        for name in weights:
            if name not in (BLEND, *covers):
                raise ManifestError(f"`ensemble.mix.{group}.{name}`: no stacker of that name in `ensemble.stackers`")
            if name != BLEND and covers[name] not in (ALL, group):
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
