"""Outputs of a network joined into one array: of several heads, or of another order."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from inference.basics.errors import CheckpointError


def join_heads(
    module: torch.nn.Module,
    outputs: int,
    heads: Sequence[Sequence[int]] = (),
    names: Sequence[str] = (),
    order: Sequence[int] = (),
) -> None:
    """Make a network return one array (images, outputs), by a hook that leaves its tensors' names as they are.

    The network returns a tensor, a tuple or list with one head per group in the order of `heads`, or a dict of them by
    `names`. `heads`: the columns of each group's labels, () if there is one head. `order`: for each output, its place
    in the tensor or in the heads one after another; (): a tensor is in order, heads are at their columns. The hook
    raises CheckpointError: other heads or shapes.
    """
    columns = [column for head in heads for column in head]
    place = list(order) or sorted(range(len(columns)), key=columns.__getitem__)

    def join(_module: torch.nn.Module, _inputs: Any, found: Any) -> torch.Tensor:
        if isinstance(found, torch.Tensor):
            _check_shape("its output", found, outputs)
            return found[:, list(order)] if order else found
        parts = _list_parts(found, len(heads), names)
        widths = [len(head) for head in heads] or [outputs]
        for index, (part, width) in enumerate(zip(parts, widths, strict=True)):
            _check_shape(f"head {names[index] if names else index}", part, width)
        joined = torch.cat(parts, dim=1)
        return joined if place in ([], list(range(outputs))) else joined[:, place]

    module.register_forward_hook(join)


def _list_parts(found: Any, heads: int, names: Sequence[str]) -> list[Any]:
    wanted = max(heads, 1)
    if isinstance(found, Mapping):
        if set(found) != set(names) and not (wanted == 1 and len(found) == 1):
            given = ", ".join(map(str, found))
            raise CheckpointError(
                f"the network returns a dict of {given}; wanted {', '.join(names) or 'one output'}, one per group"
            )
        return [found[name] for name in names] if set(found) == set(names) else list(found.values())
    if not isinstance(found, (tuple, list)):
        raise CheckpointError(
            f"the network returns {type(found).__name__}; wanted a tensor, or a tuple or dict with one per group"
        )
    if len(found) != wanted:
        raise CheckpointError(
            f"the network returns {len(found)} heads; wanted {wanted}: {', '.join(names) or 'all labels in one'}"
        )
    return list(found)


def _check_shape(what: str, found: Any, width: int) -> None:
    if not isinstance(found, torch.Tensor):
        raise CheckpointError(f"the network: {what} is {type(found).__name__}; wanted a tensor")
    if found.ndim != 2 or found.shape[1] != width:
        shape = ", ".join(["images", *(str(int(side)) for side in found.shape[1:])])
        raise CheckpointError(f"the network: {what} has the shape ({shape}); wanted (images, {width})")
