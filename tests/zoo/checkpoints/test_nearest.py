"""The network that a checkpoint belongs to, among those of timm."""

import timm
import torch

from zoo.checkpoints.nearest import describe_nearest


def sketch(name: str, outputs: int = 7) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        state: dict[str, torch.Tensor] = timm.create_model(name, num_classes=outputs).state_dict()
    return state


def test_another_size_of_the_architecture_is_named() -> None:
    wanted = sketch("test_vit")
    for name in ("test_vit", "hf-hub:timm/test_vit.r160_in1k"):
        assert describe_nearest(sketch("test_vit2"), wanted, name) == "; its tensors fit test_vit2 (100 %)"


def test_a_share_of_the_tensors_is_named() -> None:
    state = sketch("test_vit2")
    del state["pos_embed"]
    rest = len(state) - 2  # the head is not compared
    assert describe_nearest(state, sketch("test_vit"), "test_vit") == (
        f"; its tensors fit test_vit2 ({100 * rest / (rest + 1):.0f} %)"
    )


def test_nothing_is_searched_for_weights_that_nearly_fit_or_for_a_factory() -> None:
    wanted = sketch("test_vit")
    assert describe_nearest(wanted | {"extra": torch.zeros(1)}, wanted, "test_vit") == ""
    assert describe_nearest(sketch("test_vit2"), wanted, "my_networks.py:build") == ""
