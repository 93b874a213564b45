"""Makes the tensors of a checkpoint fit a network: other names of the head, names of older versions of timm."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

State = dict[str, torch.Tensor]

COUNTER = "num_batches_tracked"
# Tensors that a network computes or needs in its training only; timm's filters drop them.
COMPUTED = ("attn_mask", "relative_position_index", "relative_coords_table", "mask_token")


@dataclass(frozen=True)
class Misfit:
    """How tensors differ from those of a network; everything empty: they fit."""

    missing: tuple[str, ...]
    surplus: tuple[str, ...]
    misshapen: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return self.missing + self.surplus + self.misshapen


def fit_state(
    state: State, beside: State, module: torch.nn.Module, heads: tuple[str, ...], start: bool
) -> tuple[State, str]:
    """Return the tensors under the network's names, and a note on what was changed ('' if nothing was).

    `state`: tensors without their common prefix; `beside`: tensors of the file outside of it; `heads`, `start`: as in
    read_checkpoint. Returns tensors that do not fit if no change makes them fit.
    """
    wanted = module.state_dict()
    counters = [name for name in wanted if name.endswith(COUNTER) and name not in state]
    notes = f"{len(counters)} absent `{COUNTER}` set to 0" if counters else ""
    state = state | {name: torch.zeros_like(wanted[name], device="cpu") for name in counters}

    def rename(found: State) -> State | None:
        return _rename_head(found, beside, wanted, heads)

    def convert(found: State) -> State | None:
        return _convert_names(found, module, start)

    attempts: list[tuple[str, list[Callable[[State], State | None]]]] = [
        ("", []),
        ("head renamed", [rename]),
        ("names of timm's older versions", [convert]),
        ("names of timm's older versions, head renamed", [convert, rename]),
    ]
    for note, steps in attempts:
        found: State | None = state
        for step in steps:
            found = None if found is None else step(found)
        if found is not None and not compare(found, wanted, heads if start else ()).names:
            return found, "; ".join(part for part in (note, notes) if part)
    return state, notes


def compare(state: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], free: tuple[str, ...]) -> Misfit:
    """Compare tensors with those of a network by name and shape; `free`: prefixes of tensors that may differ."""
    names = [name for name in {**wanted, **state} if not (free and name.startswith(free))]
    return Misfit(
        tuple(sorted(name for name in names if name not in state)),
        tuple(sorted(name for name in names if name not in wanted)),
        tuple(name for name in names if name in state and name in wanted and state[name].shape != wanted[name].shape),
    )


def _rename_head(state: State, beside: State, wanted: State, heads: tuple[str, ...]) -> State | None:
    """Give the tensors of the head their names in the network, if their shapes match only one way; else None."""
    missing = [name for name in wanted if name not in state]
    spare = {name: tensor for name, tensor in state.items() if name not in wanted} | beside
    if not missing or not heads or not all(name.startswith(heads) for name in missing):
        return None
    renamed = {}
    for name in missing:
        last = name.rpartition(".")[2]
        fitting = [
            other
            for other, tensor in spare.items()
            if other.rpartition(".")[2] == last and tensor.shape == wanted[name].shape
        ]
        if len(fitting) != 1 or fitting[0] in renamed:
            return None
        renamed[fitting[0]] = name
    kept = {name: tensor for name, tensor in state.items() if name not in renamed}
    return kept | {name: spare[other] for other, name in renamed.items()}


def _convert_names(state: State, module: torch.nn.Module, start: bool) -> State | None:
    """Return the tensors after timm's own conversion from older or original names; None if there is none.

    It must not lose or make numbers, which would change the network's answers, unless the weights start a training.
    """
    home = sys.modules[type(module).__module__]
    convert = getattr(home, "checkpoint_filter_fn", None) or getattr(home, "_filter_fn", None)
    if convert is None:
        return None
    try:
        found = convert(dict(state), module)
    except TypeError:  # older ones take the tensors only
        try:
            found = convert(dict(state))
        except Exception:
            return None
    except Exception:  # they expect one of the forms that they know
        return None
    return dict(found) if start or _count_numbers(found) == _count_numbers(state) else None


def _count_numbers(state: Mapping[str, torch.Tensor]) -> int:
    return sum(
        tensor.numel() for name, tensor in state.items() if tensor.is_floating_point() and not name.endswith(COMPUTED)
    )
