"""Multiply-adds and bytes that a network needs for one image, counted from shapes alone."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from inference.basics.errors import CheckpointError
from inference.manifest.values import Size
from zoo.networks import Design, create_network

FLOAT_BYTES = 4
aten = torch.ops.aten
# Operations that a runtime fuses into the layer before, so they read and write no memory of their own.
FUSED = frozenset({aten.native_batch_norm, aten.relu, aten.relu_, aten.hardtanh, aten.hardtanh_})


@dataclass(frozen=True)
class Work:
    """Work of a network for one image, in float32."""

    multiply_adds: int
    moved: int
    """Bytes of inputs and outputs of every layer that is not fused; without weights, which a batch reads once."""
    weights: int
    """Bytes of all weights."""
    widest: int
    """Bytes of inputs and outputs of the operation that has most of them; without weights."""


def count_work(design: Design) -> Work:
    """Count the work of a network for one image of its size.

    A factory that cannot build on the meta device, where tensors have no memory, builds in memory. Raises
    CheckpointError: timm has no such architecture, or the factory fails.
    """
    try:
        with torch.device("meta"):
            network = create_network(design).module
    except CheckpointError:
        if design.build is None:
            raise
        network = create_network(design).module.to("meta")
    return measure_work(network, design.size, design.channels)


def measure_work(network: torch.nn.Module, size: Size, channels: int = 3) -> Work:
    """Count the work of a network on the meta device, where tensors have shapes but no memory."""
    image = torch.empty(1, channels, *size, device="meta")
    with torch.no_grad(), _Counter() as counter:
        network(image)
    weights = sum(tensor.numel() for tensor in network.state_dict().values())
    return Work(counter.multiply_adds, counter.moved, weights * FLOAT_BYTES, counter.widest)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts every operation that torch dispatches; multiply-adds come from torch's table of FLOPs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.multiply_adds = self.moved = self.widest = 0
        # Outputs into which the next operation can be fused, by id. Kept alive so that no id is reused; meta tensors
        # need no memory.
        self._fusible: dict[int, torch.Tensor] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        operation = func.overloadpacket
        inputs, outputs = _list_tensors(args), _list_tensors([result])
        if operation in flop_registry:
            self.multiply_adds += flop_registry[operation](*args, **(kwargs or {}), out_val=result) // 2
            # The arguments of a linear layer start with its bias; weights and biases are not counted here.
            image = inputs[1] if operation is aten.addmm else inputs[0]
            self.moved += self._note(image, *outputs)
        elif operation not in FUSED or id(inputs[0]) not in self._fusible:
            if not func.is_view:
                self.moved += self._note(*inputs, *outputs)
            return result
        self._fusible |= {id(tensor): tensor for tensor in outputs}
        return result

    def _note(self, *tensors: torch.Tensor) -> int:
        """Note the tensors of an operation; return their bytes."""
        size = FLOAT_BYTES * sum(tensor.numel() for tensor in tensors)
        self.widest = max(self.widest, size)
        return size


def _list_tensors(values: Any) -> list[torch.Tensor]:
    """Return the tensors among the arguments or results of an operation, including those in lists."""
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _list_tensors(value)
    return found
