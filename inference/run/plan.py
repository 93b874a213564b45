"""Which models and views are run: the most valuable ones that fit the time. Pure functions; seconds are an image's."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from inference.manifest.records import Manifest
from inference.manifest.values import View

# Times are rounded up to so many parts of what there is: fine enough to waste little, coarse enough to be quick.
PARTS = 500


@dataclass(frozen=True)
class Pass:
    """One model on one view of the images.

    `value`: what the whole is worth less without it; `spare`: the model has a view that is worth more; `groups`: those
    whose blend the model takes part in.
    """

    model: str
    view: View
    value: float
    spare: bool
    groups: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.model}/{self.view}"


Plan = tuple[Pass, ...]


def list_passes(manifest: Manifest) -> Plan:
    """Every model and view, in the order in which they run: what a chunk cannot do without comes first.

    The values are `ensemble.values`; a pass that is not named there is worth 0. Where the manifest has no values, the
    first view of each model is worth 1 and each further one half.
    """
    values = manifest.ensemble.values
    passes = []
    for model in manifest.models:
        weights = manifest.ensemble.weights
        groups = tuple(group for group in manifest.groups_of(model) if weights[group].get(model.name, 0) > 0)
        own = {
            view: values.get(model.name, {}).get(view, 0.0) if values else 0.5 if place else 1.0
            for place, view in enumerate(model.views)
        }
        best = max(own, key=own.__getitem__)
        passes += [Pass(model.name, view, value, view != best, groups) for view, value in own.items()]
    return tuple(sorted(passes, key=lambda one: (one.spare, 0 if one.spare else -len(one.groups), -one.value)))


def add_seconds(plan: Iterable[Pass], seconds: Mapping[str, float]) -> float:
    """What the passes of a plan take for one image; `seconds`: by model, of one view."""
    return sum(seconds[one.model] for one in plan)


def list_groups(plan: Iterable[Pass]) -> frozenset[str]:
    """The groups that have a model in the plan."""
    return frozenset(group for one in plan for group in one.groups)


def choose_passes(passes: Plan, seconds: Mapping[str, float], allowed: float) -> Plan:
    """The set with the largest value that takes at most `allowed` and has a model of each group of `passes`.

    Where no such set fits, the fastest one that has a model of each group. A knapsack with a choice of each model's
    number of views, by dynamic programming over time (Martello and Toth, Knapsack Problems, 1990).
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
    taken = set(max(whole, key=lambda found: found[:2])[2])
    return tuple(one for one in passes if one in taken)


def find_fastest(passes: Plan, seconds: Mapping[str, float]) -> Plan:
    """The fastest set of passes that has a model of each group of `passes`, one view each."""
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
    """The plan less what does not fit `allowed`: the least valuable a second first, spare views before models.

    The last model of one of `groups` stays, and so does the last pass of all, whatever they take.
    """
    kept = list(plan)
    while add_seconds(kept, seconds) > allowed:
        others = [one for one in kept if len(kept) > 1 and groups <= list_groups(set(kept) - {one})]
        candidates = [one for one in others if one.spare] or others
        if not candidates:
            break
        kept.remove(min(candidates, key=lambda one: one.value / max(seconds[one.model], 1e-9)))
    return tuple(kept)


def return_passes(plan: Plan, passes: Plan, seconds: Mapping[str, float], allowed: float) -> Plan:
    """The plan and those of `passes` that were dropped and fit `allowed` beside it, the most valuable first."""
    kept = set(plan)
    taken = add_seconds(plan, seconds)
    for one in sorted(passes, key=lambda one: (-one.value, one.spare)):
        has_base = not one.spare or any(other.model == one.model for other in kept)
        if one not in kept and has_base and taken + seconds[one.model] <= allowed:
            kept.add(one)
            taken += seconds[one.model]
    return tuple(one for one in passes if one in kept)


def choose_returns(lacking: Mapping[Pass, int], seconds: Mapping[str, float], overhead: float, left: float) -> Plan:
    """What another way through the images brings in: the most valuable passes that fit into `left` seconds.

    `lacking`: how many images still lack a pass; `overhead`: seconds to read an image again. Where none fits, the most
    valuable one, as far as the time goes.
    """
    ranked: Sequence[Pass] = sorted(lacking, key=lambda one: (-one.value, one.spare))
    chosen: list[Pass] = []
    for one in ranked:
        needed = lacking[one] * (seconds[one.model] + (0 if chosen else overhead))
        if needed <= left:
            chosen.append(one)
            left -= needed
    return tuple(chosen or ranked[:1])
