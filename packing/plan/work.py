"""How much a network has to do for one image, multiply-adds and bytes, counted from shapes alone."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from zoo.networks import create_network

FLOAT_BYTES = 4
aten = torch.ops.aten
# What a runtime does in passing, while the output of a convolution is still at hand.
FUSED = frozenset({aten.native_batch_norm, aten.relu, aten.relu_, aten.hardtanh, aten.hardtanh_})


@dataclass(frozen=True)
class Work:
    """What one image costs: multiply-adds, and bytes read and written in float32; and the bytes of all weights.

    `moved`: inputs and outputs of every layer that is not done in passing by the one before it; without the weights,
    which a batch reads once.
    """

    multiply_adds: int
    moved: int
    weights: int


def count_work(architecture: str, outputs: int, image_size: int) -> Work:
    """The work of a timm network with a head of `outputs` labels for one square image of `image_size` px.

    Raises CheckpointError where timm has no such architecture.
    """
    with torch.device("meta"):
        network = create_network(architecture, image_size, outputs).module
    return measure_work(network, image_size)


def measure_work(network: torch.nn.Module, image_size: int) -> Work:
    """The work of a network that is on the meta device, where tensors have shapes and no memory."""
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    with torch.no_grad(), _Counter() as counter:
        network(image)
    weights = sum(tensor.numel() for tensor in network.state_dict().values())
    return Work(counter.multiply_adds, counter.moved, weights * FLOAT_BYTES)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation that torch dispatches; its multiply-adds are by torch's own table of FLOPs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.multiply_adds = self.moved = 0
        # By id, and held so that no id is given twice; without memory behind them they weigh nothing.
        self._at_hand: dict[int, torch.Tensor] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        operation = func.overloadpacket
        given, made = _list_tensors(args), _list_tensors([answer])
        if operation in flop_registry:
            self.multiply_adds += flop_registry[operation](*args, **(kwargs or {}), out_val=answer) // 2
            # A linear layer's arguments start with its bias; weights and biases are not counted here.
            image = given[1] if operation is aten.addmm else given[0]
            self.moved += FLOAT_BYTES * (image.numel() + sum(tensor.numel() for tensor in made))
        elif operation not in FUSED or id(given[0]) not in self._at_hand:
            if not func.is_view:
                self.moved += FLOAT_BYTES * sum(tensor.numel() for tensor in (*given, *made))
            return answer
        self._at_hand |= {id(tensor): tensor for tensor in made}
        return answer


def _list_tensors(values: Any) -> list[torch.Tensor]:
    """The tensors among the arguments or results of an operation, those in lists included."""
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _list_tensors(value)
    return found
