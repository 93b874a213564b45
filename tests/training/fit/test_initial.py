import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from inference.basics.errors import TrainingError, VitrineError
from inference.manifest.task import Activation
from training.fit.initial import start_network
from training.recipe import Initial, Recipe
from zoo.networks import create_network

FREQUENCIES = np.array([0.5, 0.1, 0.0])


def make_recipe(**initial: str) -> Recipe:
    return Recipe("one", "test_resnet", 32, 1, initial=Initial(**initial))


def write_state(path: Path, labels: int, architecture: str = "test_resnet") -> dict[str, torch.Tensor]:
    torch.manual_seed(labels)
    state = timm.create_model(architecture, pretrained=False, num_classes=labels).state_dict()
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
    network = create_network("test_resnet", 32, 3)
    start_network(network, make_recipe(), means, activation)
    with torch.inference_mode():
        nothing = network.module.get_classifier()(torch.zeros(1, network.module.num_features))
    found = {"sigmoid": torch.sigmoid, "identity": torch.asarray, "softmax": lambda out: torch.softmax(out, 1)}
    assert found[activation](nothing)[0].tolist() == pytest.approx(expected, rel=1e-3)


def test_a_head_for_other_labels_is_not_loaded(tmp_path: Path) -> None:
    state = write_state(tmp_path / "w.safetensors", 7)
    network = create_network("test_resnet", 32, 3)
    start_network(network, make_recipe(checkpoint=str(tmp_path / "w.safetensors")), FREQUENCIES, "sigmoid")
    for name, tensor in network.module.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(tensor, state[name]), name
    assert network.module.get_classifier().bias[0] == 0


def test_a_head_for_the_same_number_of_labels_is_loaded(tmp_path: Path) -> None:
    state = write_state(tmp_path / "w.safetensors", 3)
    network = create_network("test_resnet", 32, 3)
    start_network(network, make_recipe(checkpoint=str(tmp_path / "w.safetensors")), FREQUENCIES, "sigmoid")
    assert torch.equal(network.module.get_classifier().bias, state["fc.bias"])


def write_other(path: Path) -> str:
    write_state(path, 3, "test_efficientnet")
    return "`initial`: not weights of test_resnet: "


def write_text(path: Path) -> str:
    path.write_text("hello")
    return f"{path}: not a checkpoint: "


def write_nothing(path: Path) -> str:
    return f"{path}: no such checkpoint"


def drop_tensor(path: Path) -> str:
    state = write_state(path, 7)
    del state["conv1.0.weight" if "conv1.0.weight" in state else next(iter(state))]
    save_file(state, path)
    return "`initial`: not weights of test_resnet: "


@pytest.mark.parametrize("breakage", [write_other, write_text, write_nothing, drop_tensor])
def test_a_file_that_is_not_a_matching_checkpoint_is_refused(tmp_path: Path, breakage: "type[object]") -> None:
    path = tmp_path / "w.safetensors"
    message = str(breakage(path))  # type: ignore[call-arg]
    with pytest.raises(VitrineError, match=re.escape(message)):
        start_network(create_network("test_resnet", 32, 3), make_recipe(checkpoint=str(path)), FREQUENCIES, "sigmoid")


def test_the_error_for_unknown_timm_weights_names_an_alternative() -> None:
    message = "`initial.pretrained`: timm cannot load the weights test_resnet.none: .*set `initial.checkpoint` to "
    with pytest.raises(TrainingError, match=message):
        start_network(create_network("test_resnet", 32, 3), make_recipe(pretrained="none"), FREQUENCIES, "sigmoid")


def test_a_tag_selects_timms_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def create(name: str, pretrained: bool) -> torch.nn.Module:
        asked.append((name, pretrained))
        return original("test_resnet", num_classes=1000)

    original = timm.create_model
    monkeypatch.setattr("training.fit.initial.timm.create_model", create)
    for tag in ("r160_in1k", "default"):
        start_network_with(tag)
    assert asked == [("test_resnet.r160_in1k", True), ("test_resnet", True)]


def start_network_with(tag: str) -> None:
    from training.fit.initial import read_initial

    assert read_initial(make_recipe(pretrained=tag)) is not None
