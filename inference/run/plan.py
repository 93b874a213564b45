"""Selection of the most valuable models and views that fit the time. Pure functions; seconds are per image."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from inference.ensemble.stackers import list_used_blends, list_used_stackers
from inference.manifest.model import name_member
from inference.manifest.records import BLEND, Manifest
from inference.manifest.values import View

# Parts of the allowed time to which times are rounded up: more parts waste less time but take longer to plan.
PARTS = 500


@dataclass(frozen=True)
class Pass:
    """One model on one view of the images."""

    model: str
    view: View
    value: float
    """Loss of the metric without this pass."""
    spare: bool
    """Another view of the model has a higher value."""
    groups: tuple[str, ...]
    """Groups in whose main blend the model has a weight: its scores alone give them answers."""

    def __str__(self) -> str:
        return f"{self.model}/{self.view}"


Plan = tuple[Pass, ...]


def list_passes(manifest: Manifest) -> Plan:
    """Return every model and view in running order: best views first, models of most groups first, then by value.

    Models without a weight in a blend that is used are left out unless a stacker that is used reads them, or their
    features.

    The values are `ensemble.values` of the manifest, 0 for a pass that is missing there. Without `ensemble.values`, the
    value is 1 for a model's first view and 0.5 for the others.
    """
    values = manifest.ensemble.values
    passes = []
    used = list_used_stackers(manifest)
    read = {member for stacker in used for member in (*stacker.members, *stacker.features)}
    blended = {
        name
        for blend, groups in list_used_blends(manifest).items()
        if blend != BLEND
        for group in groups
        for name, weight in manifest.ensemble.blends[blend][group].items()
        if weight > 0
    }
    for model in manifest.models:
        weights = manifest.ensemble.weights
        groups = tuple(group for group in manifest.groups_of(model) if weights[group].get(model.name, 0) > 0)
        if not groups and name_member(model) not in read and model.name not in blended:
            continue
        own = {
            view: values.get(model.name, {}).get(view, 0.0) if values else 0.5 if place else 1.0
            for place, view in enumerate(model.views)
        }
        best = max(own, key=own.__getitem__)
        passes += [Pass(model.name, view, value, view != best, groups) for view, value in own.items()]
    return tuple(sorted(passes, key=lambda one: (one.spare, 0 if one.spare else -len(one.groups), -one.value)))


def add_seconds(plan: Iterable[Pass], seconds: Mapping[str, float]) -> float:
    """Return the seconds of a plan for one image; `seconds`: per view, by model."""
    return sum(seconds[one.model] for one in plan)


def list_groups(plan: Iterable[Pass]) -> frozenset[str]:
    """Return the groups that have a model in the plan."""
    return frozenset(group for one in plan for group in one.groups)


def choose_passes(passes: Plan, seconds: Mapping[str, float], allowed: float) -> Plan:
    """Return the set of highest value that takes at most `allowed` seconds and has a model of each group of `passes`.

    If no such set fits, return the fastest set with a model of each group. Solves a multiple-choice knapsack problem
    (number of views per model) by dynamic programming over time (Martello and Toth, Knapsack Problems, 1990).
    """
    if add_seconds(passes, seconds) <= allowed:
        return passes
    groups = list_groups(passes)
    if allowed <= 0:
        return find_fastest(passes, seconds)
    # (groups that have a model, parts of the time) -> (value, passes)
    best: dict[tuple[frozenset[str], int], tuple[float, Plan]] = {(frozenset(), 0): (0.0, ())}
    for model in dict.fromkeys(one.model for one in passes):
        own = sorted((one for one in passes if one.model == model), key=lambda one: (one.spare, -one.value))
        options = [tuple(own[:count]) for count in range(1, len(own) + 1)]
        for (covered, spent), (value, chosen) in list(best.items()):
            for option in options:
                parts = spent + -int(-add_seconds(option, seconds) * PARTS // allowed)
                if parts > PARTS:
                    break
                state = (covered | list_groups(option), parts)
                worth = value + sum(one.value for one in option)
                if state not in best or worth > best[state][0]:
                    best[state] = (worth, chosen + option)
    whole = [(value, -spent, chosen) for (covered, spent), (value, chosen) in best.items() if covered == groups]
    if not whole:
        return find_fastest(passes, seconds)
    kept = set(max(whole, key=lambda found: found[:2])[2])
    return tuple(one for one in passes if one in kept)


def find_fastest(passes: Plan, seconds: Mapping[str, float]) -> Plan:
    """Return the fastest set of passes with a model of each group of `passes`, one view per model."""
    best: dict[frozenset[str], Plan] = {frozenset(): ()}
    for one in passes:
        if one.spare:
            continue
        for covered, chosen in list(best.items()):
            state, found = covered | set(one.groups), (*chosen, one)
            if state not in best or add_seconds(found, seconds) < add_seconds(best[state], seconds):
                best[state] = found
    return best[list_groups(passes)]


def drop_passes(plan: Plan, seconds: Mapping[str, float], allowed: float, groups: frozenset[str]) -> Plan:
    """Return the plan cut to `allowed` seconds: drop the lowest value per second first, spare views before models.

    Keep the last model of each of `groups` and the last pass of all, even if they exceed `allowed`.
    """
    kept = list(plan)
    while add_seconds(kept, seconds) > allowed:
        others = [one for one in kept if len(kept) > 1 and groups <= list_groups(set(kept) - {one})]
        candidates = [one for one in others if one.spare] or others
        if not candidates:
            break
        kept.remove(min(candidates, key=lambda one: one.value / max(seconds[one.model], 1e-9)))
    return tuple(kept)


def restore_passes(plan: Plan, passes: Plan, seconds: Mapping[str, float], allowed: float) -> Plan:
    """Return the plan with the dropped ones of `passes` that fit into `allowed` seconds, the most valuable first."""
    kept = set(plan)
    spent = add_seconds(plan, seconds)
    for one in sorted(passes, key=lambda one: (-one.value, one.spare)):
        has_base = not one.spare or any(other.model == one.model for other in kept)
        if one not in kept and has_base and spent + seconds[one.model] <= allowed:
            kept.add(one)
            spent += seconds[one.model]
    return tuple(one for one in passes if one in kept)


def choose_remaining(missing: Mapping[Pass, int], seconds: Mapping[str, float], overhead: float, left: float) -> Plan:
    """Return the passes of a further sweep: the most valuable ones that fit into `left` seconds.

    `missing`: number of images without each pass; `overhead`: seconds to read an image again. If no pass fits, return
    the most valuable one, to run until time runs out.
    """
    ranked: Sequence[Pass] = sorted(missing, key=lambda one: (-one.value, one.spare))
    chosen: list[Pass] = []
    for one in ranked:
        needed = missing[one] * (seconds[one.model] + (0 if chosen else overhead))
        if needed <= left:
            chosen.append(one)
            left -= needed
    return tuple(chosen or ranked[:1])
