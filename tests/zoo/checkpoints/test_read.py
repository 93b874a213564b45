"""Weights in every form that training code leaves, against the network that they were saved from."""

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file

from inference.basics.errors import CheckpointError
from tests.zoo.checkpoints.forms import (
    AVERAGED,
    AVERAGES,
    OUTPUTS,
    TAKEN,
    average,
    make_network,
    make_optimizer,
    prefix,
    split_head,
    write_safetensors,
)
from zoo.checkpoints.read import Checkpoint, read_checkpoint
from zoo.checkpoints.write import write_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")
HEADS = ("fc.",)
FORM_TOLERANCE = {"half": 1e-3, "bfloat16": 1e-2}


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return make_network()


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def read(path: Path, **more: Any) -> Checkpoint:
    return read_checkpoint(path, make_network(), heads=HEADS, name="test_resnet", **more)


def run(state: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """The outputs of a new network with these weights, which must be all of them."""
    with torch.inference_mode():
        other = timm.create_model("test_resnet", num_classes=OUTPUTS).eval()
        other.load_state_dict(state)
        outputs: torch.Tensor = other(image)
    return outputs


@pytest.mark.parametrize("name", TAKEN)
def test_a_form_is_recognised_and_gives_the_outputs_of_the_network(
    name: str, network: torch.nn.Module, image: torch.Tensor, tmp_path: Path
) -> None:
    make, form = TAKEN[name]
    path = tmp_path / "epoch=3-val_f2=0.61 (1).ckpt"
    torch.save(make(network.state_dict()), path)
    checkpoint = read(path)
    assert checkpoint.form == form
    with torch.inference_mode():
        wanted = network(image)
    tolerance = FORM_TOLERANCE.get(name, 0)
    assert torch.allclose(run(checkpoint.state, image), wanted, rtol=tolerance, atol=tolerance)
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in checkpoint.state.values())


@pytest.mark.parametrize("ema", [True, False])
@pytest.mark.parametrize("name", AVERAGES)
def test_the_moving_average_is_taken_unless_the_plain_weights_are_wanted(
    name: str, ema: bool, network: torch.nn.Module, tmp_path: Path
) -> None:
    make, averaged, plain = AVERAGES[name]
    torch.save(make(network.state_dict()), tmp_path / "w.pth.tar")
    checkpoint = read(tmp_path / "w.pth.tar", ema=ema)
    assert checkpoint.form == (averaged if ema else plain)
    wanted = network.state_dict()["fc.weight"] + (AVERAGED if ema else 0)
    assert torch.equal(checkpoint.state["fc.weight"], wanted)


@pytest.mark.parametrize("ema", [True, False])
def test_an_average_without_plain_weights_is_taken(ema: bool, network: torch.nn.Module, tmp_path: Path) -> None:
    torch.save({"state_dict_ema": average(network.state_dict())}, tmp_path / "w.pth")
    checkpoint = read(tmp_path / "w.pth", ema=ema)
    assert checkpoint.form == "`state_dict_ema`, the moving average"
    assert torch.equal(checkpoint.state["fc.bias"], network.state_dict()["fc.bias"] + AVERAGED)


def test_an_average_that_lacks_tensors_is_not_taken(network: torch.nn.Module, tmp_path: Path) -> None:
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
    torch.save({"model": network.state_dict(), "ema": parameters}, tmp_path / "w.pth")
    assert read(tmp_path / "w.pth").form == "`model`, not the moving average `ema`, which lacks tensors"


def test_safetensors_are_read_whatever_the_file_is_called(network: torch.nn.Module, tmp_path: Path) -> None:
    for name, before in (("w.safetensors", "module."), ("w.pth", "")):
        write_safetensors(prefix(network.state_dict(), before), tmp_path / name)
        assert torch.equal(read(tmp_path / name).state["fc.weight"], network.state_dict()["fc.weight"])
    torch.save(network.state_dict(), tmp_path / "torch.safetensors", _use_new_zipfile_serialization=False)
    assert torch.equal(read(tmp_path / "torch.safetensors").state["fc.weight"], network.state_dict()["fc.weight"])


def test_written_weights_are_read_again(network: torch.nn.Module, tmp_path: Path) -> None:
    state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
    write_checkpoint(state, tmp_path / "a.safetensors")
    write_checkpoint(dict(reversed(state.items())), tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o044 == 0o044  # others may read it
    read_again, by_library = read(tmp_path / "a.safetensors").state, load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(read_again[key], state[key]) and torch.equal(by_library[key], state[key]) for key in state)


def rename_as_before_timm_0_9(state: dict[str, torch.Tensor], module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A Swin's names then: patches merge at the end of a stage, the head is `head`, masks and indices are stored."""
    old = {}
    for key, tensor in state.items():
        stage = re.match(r"layers\.(\d)\.downsample", key)
        renamed = key.replace(stage[0], f"layers.{int(stage[1]) - 1}.downsample") if stage else key
        old[renamed.replace("head.fc.", "head.")] = tensor
    computed = ("attn_mask", "relative_position_index")
    return old | {name: buffer for name, buffer in module.named_buffers() if name.endswith(computed)}


def test_a_swin_of_older_versions_of_timm_gives_the_same_outputs(tmp_path: Path) -> None:
    arguments = {"num_classes": OUTPUTS, "img_size": 56, "window_size": 7, "embed_dim": 24, "depths": (1, 1, 1, 1)}
    name = "swin_tiny_patch4_window7_224"
    source, target = (timm.create_model(name, **arguments).eval() for _ in range(2))
    old = rename_as_before_timm_0_9(source.state_dict(), source)
    assert set(old) != set(source.state_dict())
    torch.save({"model": old}, tmp_path / "w.pth")
    checkpoint = read_checkpoint(tmp_path / "w.pth", target, heads=("head.fc.",))
    assert checkpoint.form == "`model`; names of timm's older versions"
    target.load_state_dict(checkpoint.state)
    image = torch.rand(1, 3, 56, 56)
    with torch.inference_mode():
        assert torch.equal(target(image), source(image))


def resize_positions(arguments: dict[str, Any], path: Path) -> torch.nn.Module:
    """Save a network of 64 px; return the same architecture for 96 px."""
    network = timm.create_model("test_vit", num_classes=OUTPUTS, img_size=64, **arguments)
    torch.save(network.state_dict(), path)
    return timm.create_model("test_vit", num_classes=OUTPUTS, img_size=96, **arguments)


def test_position_embeddings_of_another_size_are_resized_for_a_training_only(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    target = resize_positions({}, path)
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path, target, heads=("head.",))
    assert str(error.value) == (
        f"{path}: `pos_embed` is (1, 17, 64); wanted (1, 37, 64); was it trained for another image size?"
    )
    state = read_checkpoint(path, target, heads=("head.",), start=True).state
    given, found = torch.load(path)["pos_embed"], state["pos_embed"]
    grid = given[:, 1:].reshape(1, 4, 4, 64).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(grid, (6, 6), mode="bicubic", antialias=True)
    assert torch.allclose(found[:, 1:], resized.permute(0, 2, 3, 1).reshape(1, 36, 64), atol=1e-6)
    assert torch.equal(found[:, :1], given[:, :1])


@pytest.mark.parametrize(
    ("make", "left_out"),
    [
        (lambda: make_network(num_classes=1000).state_dict(), "; without the head `fc.bias`, `fc.weight`"),
        (lambda: make_network(num_classes=0).state_dict(), "; without the head `fc.bias`, `fc.weight`"),
        (lambda: make_network().state_dict(), ""),
    ],
)
def test_a_training_starts_without_a_head_that_does_not_fit(make: Any, left_out: str, tmp_path: Path) -> None:
    torch.save(make(), tmp_path / "w.pth")
    checkpoint = read(tmp_path / "w.pth", start=True)
    assert checkpoint.form == f"plain weights{left_out}"
    missing, surplus = make_network().load_state_dict(checkpoint.state, strict=False)
    assert (missing, surplus) == (["fc.weight", "fc.bias"] if left_out else [], [])


def test_a_training_does_not_start_from_another_network(tmp_path: Path) -> None:
    state = make_network().state_dict()
    del state["conv1.0.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"missing `conv1\.0\.weight`; is it a checkpoint of test_resnet"):
        read(tmp_path / "w.pth", start=True)


def without(*keys: str) -> dict[str, torch.Tensor]:
    state = make_network().state_dict()
    return {key: tensor for key, tensor in state.items() if key not in keys}


def fill(key: str, value: float) -> dict[str, torch.Tensor]:
    state = make_network().state_dict()
    return state | {key: torch.full_like(state[key], value)}


# (what is saved, the message after the path)
REFUSED: dict[str, tuple[Any, str]] = {
    "other_outputs": (
        lambda: make_network(num_classes=1000).state_dict(),
        "the head `fc.weight` has 1000 outputs; wanted 5, one per label of the group",
    ),
    "no_head": (
        lambda: make_network(num_classes=0).state_dict(),
        "a checkpoint of test_resnet without its head: missing `fc.bias`, `fc.weight`; choose the checkpoint of the "
        "trained network",
    ),
    "grey": (
        lambda: make_network(in_chans=1).state_dict(),
        "`conv1.0.weight` takes images of 1 channel; wanted 3; set channels to 1 for a network of grey images, to 3 "
        "for one of RGB images",
    ),
    "nan": (
        lambda: fill("fc.bias", float("nan")),
        "`fc.bias` holds NaN or infinity; choose another checkpoint of the training",
    ),
    "infinite": (
        lambda: fill("bn1.running_var", float("inf")),
        "`bn1.running_var` holds NaN or infinity; choose another checkpoint of the training",
    ),
    "complex": (
        lambda: make_network().state_dict() | {"fc.bias": torch.zeros(5, dtype=torch.complex64)},
        "`fc.bias` is torch.complex64; wanted float32, float16 or bfloat16",
    ),
    "missing": (lambda: without("bn1.bias"), "missing `bn1.bias`; is it a checkpoint of test_resnet?"),
    "surplus": (
        lambda: make_network().state_dict() | {"extra.a": torch.zeros(1)},
        "surplus `extra.a`; is it a checkpoint of test_resnet?",
    ),
    "both": (
        lambda: without("bn1.bias") | {f"extra.{index}": torch.zeros(1) for index in range(7)},
        "missing `bn1.bias`; surplus `extra.0`, `extra.1`, `extra.2`, `extra.3`, `extra.4` and 2 more; "
        "is it a checkpoint of test_resnet?",
    ),
    "misshapen": (
        lambda: make_network().state_dict() | {"bn1.bias": torch.zeros(1)},
        "`bn1.bias` is (1,); wanted (32,)",
    ),
    "two_heads": (
        lambda: (
            split_head(make_network().state_dict(), "backbone.", "head.")
            | {"other.weight": torch.zeros(5, 64), "other.bias": torch.zeros(5)}
        ),
        "a checkpoint of test_resnet without its head: missing `fc.bias`, `fc.weight`; choose the checkpoint of the "
        "trained network",
    ),
    "twice": (
        lambda: {"student": make_network().state_dict(), "teacher": make_network().state_dict()},
        "found weights twice, as `student` and as `teacher`; save one of them",
    ),
    "optimizer": (
        lambda: make_optimizer(make_network().state_dict()),
        "found the state of an optimizer and no table of tensors; wanted what model.state_dict() returns",
    ),
    "wrapped_optimizer": (
        lambda: {"optimizer": make_optimizer(make_network().state_dict()), "epoch": 3},
        "found the state of an optimizer under `optimizer` and no table of tensors; "
        "wanted what model.state_dict() returns",
    ),
    "list": (
        lambda: [make_network().state_dict(), {}],
        "found a list of 2 and no table of tensors; wanted what model.state_dict() returns",
    ),
    "tensor": (
        lambda: torch.zeros(3),
        "found one tensor and no table of tensors; wanted what model.state_dict() returns",
    ),
    "numbers": (
        lambda: {"epoch": 3, "score": 0.5},
        "found a dict of epoch, score and no table of tensors; wanted what model.state_dict() returns",
    ),
    "nothing": (dict, "found an empty dict and no table of tensors; wanted what model.state_dict() returns"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_weights_that_do_not_fit_are_refused(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    path = tmp_path / "w.pth"
    torch.save(make(), path)
    with pytest.raises(CheckpointError) as error:
        read(path)
    assert str(error.value) == f"{path}: {message}"
