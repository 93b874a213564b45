import re
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from inference.basics.errors import TrainingError, VitrineError
from inference.manifest.task import Activation
from training.fit.initial import read_pretrained, start_network
from training.recipe import Initial, Recipe
from zoo.architectures.heads import join_heads
from zoo.networks import Design, create_network

FREQUENCIES = np.array([0.5, 0.1, 0.0])
DESIGN = Design("test_resnet", (32, 32), 3)


def make_recipe(**initial: str) -> Recipe:
    return Recipe("one", "test_resnet", 32, 1, initial=Initial(**initial))


def write_state(path: Path, labels: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(labels)
    state = timm.create_model("test_resnet", pretrained=False, num_classes=labels).state_dict()
    save_file(state, path)
    return state


@pytest.mark.parametrize(
    ("activation", "means", "expected"),
    [
        ("sigmoid", FREQUENCIES, [0.5, 0.1, 1e-5]),
        ("softmax", np.array([0.7, 0.3, 0.0]), [0.7, 0.3, 1e-5]),
        ("identity", np.array([0.4, -2.0, 7.0]), [0.4, -2.0, 7.0]),
    ],
)
def test_an_untrained_head_predicts_the_means_of_the_targets(
    activation: Activation, means: np.ndarray, expected: list[float]
) -> None:
    network = create_network(DESIGN)
    start_network(network.module, DESIGN, make_recipe(), means, activation)
    with torch.inference_mode():
        nothing = network.module.get_classifier()(torch.zeros(1, network.module.num_features))
    found = {"sigmoid": torch.sigmoid, "identity": torch.asarray, "softmax": lambda out: torch.softmax(out, 1)}
    assert found[activation](nothing)[0].tolist() == pytest.approx(expected, rel=1e-3)


def test_a_head_for_other_labels_is_not_loaded(tmp_path: Path) -> None:
    state = write_state(tmp_path / "w.safetensors", 7)
    network = create_network(DESIGN)
    start_network(
        network.module, DESIGN, make_recipe(checkpoint=str(tmp_path / "w.safetensors")), FREQUENCIES, "sigmoid"
    )
    for name, tensor in network.module.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(tensor, state[name]), name
    assert network.module.get_classifier().bias[0] == 0


def test_a_head_for_the_same_number_of_labels_is_loaded(tmp_path: Path) -> None:
    state = write_state(tmp_path / "w.safetensors", 3)
    network = create_network(DESIGN)
    start_network(
        network.module, DESIGN, make_recipe(checkpoint=str(tmp_path / "w.safetensors")), FREQUENCIES, "sigmoid"
    )
    assert torch.equal(network.module.get_classifier().bias, state["fc.bias"])


def test_the_moving_average_of_a_file_in_another_form_is_loaded(tmp_path: Path) -> None:
    path, plain = tmp_path / "epoch=3-val_f2=0.61.ckpt", timm.create_model("test_resnet", num_classes=7).state_dict()
    average = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in plain.items()}
    torch.save({"model_ema": average, "state_dict": {f"model.{name}": one for name, one in plain.items()}}, path)
    module = create_network(DESIGN).module
    start_network(module, DESIGN, make_recipe(checkpoint=str(path)), FREQUENCIES, "sigmoid")
    assert torch.equal(module.conv1[0].weight, average["conv1.0.weight"])


def write_text(path: Path) -> str:
    path.write_text("hello")
    return f"{path}: not a checkpoint: "


def write_nothing(path: Path) -> str:
    return f"{path}: no such checkpoint"


def drop_tensor(path: Path) -> str:
    state = write_state(path, 7)
    del state["conv1.0.weight"]
    save_file(state, path)
    return f"{path}: missing `conv1.0.weight`; is it a checkpoint of test_resnet?"


@pytest.mark.parametrize("breakage", [write_text, write_nothing, drop_tensor])
def test_a_file_that_is_not_a_matching_checkpoint_is_refused(tmp_path: Path, breakage: "type[object]") -> None:
    path = tmp_path / "w.safetensors"
    message = str(breakage(path))  # type: ignore[call-arg]
    with pytest.raises(VitrineError, match=re.escape(message)):
        start_network(create_network(DESIGN).module, DESIGN, make_recipe(checkpoint=str(path)), FREQUENCIES, "sigmoid")


def test_the_error_for_unknown_timm_weights_names_an_alternative() -> None:
    message = "`initial.pretrained`: timm cannot load the weights test_resnet.none: .*set `initial.checkpoint` to "
    with pytest.raises(TrainingError, match=message):
        start_network(create_network(DESIGN).module, DESIGN, make_recipe(pretrained="none"), FREQUENCIES, "sigmoid")


@pytest.mark.parametrize(
    ("architecture", "tag", "channels", "asked"),
    [
        ("test_resnet", "r160_in1k", 3, {"name": "test_resnet.r160_in1k", "in_chans": 3}),
        ("test_resnet.r160_in1k", "default", 3, {"name": "test_resnet.r160_in1k", "in_chans": 3}),
        ("hf-hub:timm/test_resnet", "r160_in1k", 1, {"name": "test_resnet.r160_in1k", "in_chans": 1}),
        ("test_vit", "default", 3, {"name": "test_vit", "in_chans": 3, "img_size": (32, 48)}),
    ],
)
def test_a_tag_selects_timms_weights_for_the_size_and_the_channels(
    architecture: str, tag: str, channels: Literal[1, 3], asked: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def create(name: str, **arguments: object) -> torch.nn.Module:
        calls.append({"name": name, **arguments})
        return torch.nn.Linear(2, 2)

    monkeypatch.setattr("training.fit.initial.timm.create_model", create)
    recipe = Recipe("one", architecture, (32, 48), 1, channels=channels, initial=Initial(pretrained=tag))
    assert read_pretrained(recipe).keys() == {"weight", "bias"}
    assert calls == [{"pretrained": True, **asked}]


def test_timms_weights_keep_the_new_head_where_the_labels_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    trained, network = timm.create_model("test_resnet", num_classes=1000), create_network(DESIGN)
    monkeypatch.setattr("training.fit.initial.timm.create_model", lambda *_, **__: trained)
    start_network(network.module, DESIGN, make_recipe(pretrained="default"), FREQUENCIES, "sigmoid")
    assert torch.equal(network.module.conv1[0].weight, trained.conv1[0].weight)
    assert network.module.fc.bias.sigmoid().tolist() == pytest.approx([0.5, 0.1, 1e-5], rel=1e-3)


def test_each_head_of_a_network_of_ones_own_starts_at_its_labels() -> None:
    class Heads(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.one, self.two = torch.nn.Linear(4, 8), torch.nn.Linear(8, 2), torch.nn.Linear(8, 1)

        def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            features = self.body(batch)
            return self.one(features), self.two(features)

    module, columns = Heads(), ((0, 2), (1,))
    join_heads(module, 3, columns, ("one", "two"))
    design = Design("nets.py:build", (8, 8), 3, heads=columns, head_names=("one", "two"))
    body = module.body.bias.clone()
    start_network(module, design, Recipe("one", "nets.py:build", 8, 1), FREQUENCIES, "sigmoid")
    assert torch.equal(module.body.bias, body)
    for layer in (module.one, module.two):
        torch.nn.init.zeros_(layer.weight)
    assert module(torch.ones(1, 4)).sigmoid()[0].tolist() == pytest.approx([0.5, 0.1, 1e-5], rel=1e-3)
