from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from timm.utils.model_ema import ModelEmaV3
from torch.nn.parallel import DistributedDataParallel

from zoo.architectures.heads import join_heads


class Heads(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Linear(4, 2), torch.nn.Linear(4, 1)

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"two": self.two(batch), "one": self.one(batch)}


@pytest.fixture
def module() -> torch.nn.Module:
    module = Heads()
    join_heads(module, 3, ((0, 2), (1,)), ("one", "two"))
    return module


def join_by_hand(module: Heads, batch: torch.Tensor) -> torch.Tensor:
    one, two = module.one(batch), module.two(batch)
    return torch.stack([one[:, 0], two[:, 0], one[:, 1]], dim=1)


def test_heads_are_joined_on_several_processes_and_their_gradients_are_shared(module: Heads, tmp_path: Path) -> None:
    batch = torch.rand(5, 4)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(module)
        found = wrapped(batch)
        torch.testing.assert_close(found, join_by_hand(module, batch))
        found.sum().backward()
        assert all(parameter.grad is not None for parameter in module.parameters())
        assert list(wrapped.module.state_dict()) == ["one.weight", "one.bias", "two.weight", "two.bias"]
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_heads_are_joined_after_accelerate_and_in_the_average_of_weights(module: Heads, precision: str) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    batch, accelerator = torch.rand(5, 4), Accelerator(cpu=True, mixed_precision=precision)
    wrapped = accelerator.prepare(module)
    found = wrapped(batch)
    assert found.shape == (5, 3) and found.dtype == torch.float32
    torch.testing.assert_close(found, join_by_hand(module, batch), rtol=0, atol=0.02)
    average = ModelEmaV3(accelerator.unwrap_model(wrapped), decay=0.9).module
    torch.testing.assert_close(average(batch).float(), found, rtol=0, atol=0.02)
    AcceleratorState._reset_state(reset_partial_state=True)
