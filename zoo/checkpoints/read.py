"""Reads the weights of a network from a checkpoint in any common form."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from inference.basics.errors import CheckpointError
from zoo.checkpoints.fit import State, compare, fit_state
from zoo.checkpoints.load import load_file
from zoo.checkpoints.nearest import describe_nearest
from zoo.checkpoints.unwrap import Table, choose_table, describe_contents, list_tables

SHOWN_KEYS = 5


@dataclass(frozen=True)
class Checkpoint:
    """Weights that fit a network."""

    state: State
    """By the network's names, in its types (float32, and whole numbers where it has them), finite."""
    form: str
    """What the file was recognised as, in one line."""


def read_checkpoint(
    path: Path,
    module: torch.nn.Module,
    ema: bool = True,
    heads: tuple[str, ...] = (),
    start: bool = False,
    name: str = "the network",
) -> Checkpoint:
    """Read the weights for `module`, as `load_state_dict` takes them.

    `ema`: take the moving average of a file that has both. `heads`: prefixes of the tensors of the head, as in `fc.`
    (zoo.architectures.named.find_heads). `start`: the weights start a training: the head may be missing or have other
    outputs, and is then left out of the state; position embeddings of another image size are resized. `name`: of the
    architecture, for messages. Raises CheckpointError naming the file: no weights, or weights that do not fit.
    """
    loaded = load_file(path)
    wanted = module.state_dict()
    tables = list_tables(loaded, wanted)
    if not tables:
        raise CheckpointError(
            f"{path}: found {describe_contents(loaded)} and no table of tensors; wanted what model.state_dict() returns"
        )
    try:
        table, average = choose_table(tables, ema)
    except ValueError as error:
        raise CheckpointError(f"{path}: found {error}") from error
    inside = {key[len(table.prefix) :]: one for key, one in table.tensors.items() if key.startswith(table.prefix)}
    beside = {key: one for key, one in table.tensors.items() if not key.startswith(table.prefix)}
    state, change = fit_state(inside, beside, module, heads, start)
    free = heads if start else ()
    _refuse_misfit(path, state, wanted, heads, free, name)
    if free:
        kept = {key for key in state if key in wanted and state[key].shape == wanted[key].shape}
        left = sorted(key for key in wanted if key not in kept)
        state = {key: tensor for key, tensor in state.items() if key in kept}
        change = "; ".join(part for part in (change, f"without the head {name_keys(left)}" if left else "") if part)
    used = set(map(id, state.values()))
    # Those of the other weights in the table are named as such.
    others = tuple(one.prefix for one in tables if one.key == table.key and one.prefix != table.prefix)
    ignored = [key for key, tensor in beside.items() if id(tensor) not in used and not key.startswith(others)]
    return Checkpoint(
        {key: _convert(path, key, tensor, wanted[key]) for key, tensor in state.items()},
        _describe(loaded, table, average, [change, f"ignored: {name_keys(ignored)}" if ignored else ""]),
    )


def name_keys(keys: Collection[str]) -> str:
    """Return the first keys as text, and how many more there are."""
    shown = ", ".join(f"`{key}`" for key in sorted(keys)[:SHOWN_KEYS])
    more = len(keys) - SHOWN_KEYS
    return f"{shown} and {more} more" if more > 0 else shown


def _refuse_misfit(
    path: Path, state: State, wanted: State, heads: tuple[str, ...], free: tuple[str, ...], name: str
) -> None:
    misfit = compare(state, wanted, free)
    for key in misfit.misshapen:
        found, own = tuple(state[key].shape), tuple(wanted[key].shape)
        if heads and key.startswith(heads) and found[1:] == own[1:]:
            raise CheckpointError(
                f"{path}: the head `{key}` has {found[0]} outputs; wanted {own[0]}, one per label of the group"
            )
    if misfit.names and heads and all(key.startswith(heads) for key in misfit.names) and not misfit.surplus:
        raise CheckpointError(
            f"{path}: a checkpoint of {name} without its head: missing {name_keys(misfit.missing)}; "
            "choose the checkpoint of the trained network"
        )
    if misfit.missing or misfit.surplus:
        differing = "; ".join(
            f"{problem} {name_keys(keys)}"
            for problem, keys in (("missing", misfit.missing), ("surplus", misfit.surplus))
            if keys
        )
        raise CheckpointError(
            f"{path}: {differing}; is it a checkpoint of {name}?{describe_nearest(state, wanted, name)}"
        )
    for key in misfit.misshapen:
        found, own = tuple(state[key].shape), tuple(wanted[key].shape)
        if len(own) == 4 and found[0] == own[0] and found[2:] == own[2:] and {found[1], own[1]} == {1, 3}:
            raise CheckpointError(
                f"{path}: `{key}` takes images of {found[1]} channel{'s' if found[1] > 1 else ''}; wanted {own[1]}; "
                "set channels to 1 for a network of grey images, to 3 for one of RGB images"
            )
        hint = "; was it trained for another image size?" if "pos" in key else describe_nearest(state, wanted, name)
        raise CheckpointError(f"{path}: `{key}` is {found}; wanted {own}{hint}")


def _convert(path: Path, key: str, tensor: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return a tensor in the type of the network's. Raises CheckpointError: not a number somewhere."""
    if tensor.is_quantized or tensor.is_complex():
        raise CheckpointError(f"{path}: `{key}` is {tensor.dtype}; wanted float32, float16 or bfloat16")
    if not bool(tensor.isfinite().all()):
        raise CheckpointError(f"{path}: `{key}` holds NaN or infinity; choose another checkpoint of the training")
    return tensor.detach().to(wanted.dtype).contiguous()


def _describe(loaded: Any, table: Table, average: str, notes: list[str]) -> str:
    keys: Mapping[str, Any] = loaded if isinstance(loaded, Mapping) else {}
    origin = ""
    if "pytorch-lightning_version" in keys:
        origin = "Lightning: "
    elif "n_averaged" in table.tensors:
        origin = "torch's AveragedModel: "
    elif "arch" in keys and "version" in keys:
        origin = "timm's train.py: "
    source = f"`{table.key}`" if table.key else "plain weights"
    prefix = f" without `{table.prefix}`" if table.prefix else ""
    taken = ", ".join(part for part in (f"{origin}{source}{prefix}", average) if part)
    return "; ".join(part for part in (taken, *notes) if part)
