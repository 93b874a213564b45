"""The forms in which training code leaves the weights of one small network."""

import argparse
import collections
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file

OUTPUTS = 5
AVERAGED = 0.25
"""The moving average is the weights plus this."""
State = dict[str, torch.Tensor]


def make_network(**arguments: Any) -> torch.nn.Module:
    """The network whose weights are saved; with arguments, another one of the same architecture."""
    torch.manual_seed(0)
    network: torch.nn.Module = timm.create_model("test_resnet", **{"num_classes": OUTPUTS} | arguments)
    return network.eval()


def average(state: State) -> State:
    return {key: tensor + AVERAGED if tensor.is_floating_point() else tensor for key, tensor in state.items()}


def prefix(state: State, before: str) -> State:
    return {before + key: tensor for key, tensor in state.items()}


def cast(state: State, dtype: torch.dtype) -> State:
    return {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in state.items()}


def drop_counters(state: State) -> State:
    return collections.OrderedDict((key, tensor) for key, tensor in state.items() if "num_batches" not in key)


def split_head(state: State, backbone: str, head: str) -> State:
    """The weights of a network made of a headless timm network and a linear layer."""
    return {(head + key[3:] if key.startswith("fc.") else backbone + key): tensor for key, tensor in state.items()}


def make_optimizer(state: State) -> dict[str, Any]:
    """The state of Adam after one step for three tensors: it has a table of tensors for each."""
    parameters = [torch.nn.Parameter(tensor.clone()) for tensor in state.values() if tensor.is_floating_point()][:3]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.Adam(parameters)
    optimizer.step()
    return optimizer.state_dict()


def wrap_lightning(state: State, **more: Any) -> dict[str, Any]:
    """A checkpoint of PyTorch Lightning."""
    callbacks = {"ModelCheckpoint": {"best_model_path": "x", "best_model_score": torch.tensor(0.5)}}
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "callbacks": callbacks,
        "optimizer_states": [make_optimizer(state)],
        "state_dict": state,
        **more,
    }


def wrap_timm(state: State, **more: Any) -> dict[str, Any]:
    """A checkpoint of timm's train.py."""
    known = {"epoch": 3, "arch": "test_resnet", "version": 2, "metric": 0.5}
    return {**known, "state_dict": state, "optimizer": make_optimizer(state), **more}


def average_by_torch(_state: State) -> State:
    averaged = torch.optim.swa_utils.AveragedModel(make_network())
    averaged.update_parameters(make_network())
    return averaged.state_dict()


# name: (what is saved, how the form is described)
TAKEN: dict[str, tuple[Callable[[State], Any], str]] = {
    "plain": (dict, "plain weights"),
    "data_parallel": (lambda s: {"epoch": 3, "state_dict": prefix(s, "module.")}, "`state_dict` without `module.`"),
    "model_key": (lambda s: {"model": s, "optimizer": make_optimizer(s), "epoch": 3}, "`model`"),
    "half": (lambda s: cast(s, torch.float16), "plain weights"),
    "bfloat16": (lambda s: cast(s, torch.bfloat16), "plain weights"),
    "timm": (lambda s: wrap_timm(s, args=argparse.Namespace(lr=0.1)), "timm's train.py: `state_dict`"),
    "averaged_model": (
        average_by_torch,
        "torch's AveragedModel: plain weights without `module.`; ignored: `n_averaged`",
    ),
    "compiled": (lambda s: prefix(s, "_orig_mod."), "plain weights without `_orig_mod.`"),
    "compiled_in_parallel": (
        lambda s: prefix(s, "module._orig_mod."),
        "plain weights without `module._orig_mod.`",
    ),
    "net_prefix": (lambda s: prefix(s, "net."), "plain weights without `net.`"),
    "model_prefix": (lambda s: {"state_dict": prefix(s, "model.")}, "`state_dict` without `model.`"),
    "module_model": (lambda s: prefix(s, "module.model."), "plain weights without `module.model.`"),
    "timm_wrapper": (lambda s: prefix(s, "timm_model."), "plain weights without `timm_model.`"),
    "unusual_prefix": (lambda s: {"weights": prefix(s, "my_net.")}, "`weights` without `my_net.`"),
    "backbone_and_head": (
        lambda s: split_head(s, "backbone.", "head."),
        "plain weights without `backbone.`; head renamed",
    ),
    "sequential": (lambda s: split_head(s, "0.", "2."), "plain weights without `0.`; head renamed"),
    "lightning": (
        lambda s: wrap_lightning(prefix(s, "model."), hyper_parameters={"lr": 0.001}),
        "Lightning: `state_dict` without `model.`",
    ),
    "lightning_namespace": (
        lambda s: wrap_lightning(prefix(s, "net."), hyper_parameters=argparse.Namespace(root=Path("a/b"))),
        "Lightning: `state_dict` without `net.`",
    ),
    "lightning_criterion": (
        lambda s: wrap_lightning(prefix(s, "model.") | {"criterion.pos_weight": torch.ones(OUTPUTS)}),
        "Lightning: `state_dict` without `model.`; ignored: `criterion.pos_weight`",
    ),
    "model_state_dict": (
        lambda s: {"model_state_dict": s, "optimizer_state_dict": make_optimizer(s), "loss": torch.tensor(0.5)},
        "`model_state_dict`",
    ),
    "net_key": (lambda s: {"net": s, "acc": 0.9}, "`net`"),
    "deepspeed": (lambda s: {"module": s, "epoch": 3}, "`module`"),
    "nested": (lambda s: {"checkpoint": {"model": s}}, "`checkpoint.model`"),
    "defaultdict": (lambda s: collections.defaultdict(list, s), "plain weights"),
    "numpy_values": (
        lambda s: {
            "state_dict": s,
            "best": np.float64(0.61),
            "scores": np.zeros((3, 2), np.float16),
            "seen": [np.int64(3), np.bool_(True), np.array(["a"]), np.dtype("float32")],
        },
        "`state_dict`",
    ),
    "no_counters": (drop_counters, "plain weights; 15 absent `num_batches_tracked` set to 0"),
}

# name: (what is saved, the form of the moving average, the form of the plain weights)
AVERAGES: dict[str, tuple[Callable[[State], Any], str, str]] = {
    "timm_args": (
        lambda s: wrap_timm(s, state_dict_ema=average(s), args=argparse.Namespace(model="test_resnet")),
        "timm's train.py: `state_dict_ema`, the moving average, not the plain `state_dict`",
        "timm's train.py: `state_dict`, not the moving average `state_dict_ema`",
    ),
    "model_ema": (
        lambda s: {"model": s, "model_ema": average(s)},
        "`model_ema`, the moving average, not the plain `model`",
        "`model`, not the moving average `model_ema`",
    ),
    "nested_ema": (
        lambda s: {"model": prefix(s, "module."), "ema": {"module": prefix(average(s), "module."), "decay": 0.99}},
        "`ema.module` without `module.`, the moving average, not the plain `module.` in `model`",
        "`model` without `module.`, not the moving average `module.` in `ema.module`",
    ),
    "lightning_ema": (
        lambda s: wrap_lightning(prefix(s, "model.") | prefix(average(s), "ema_model.")),
        "Lightning: `state_dict` without `ema_model.`, the moving average, not the plain `model.` in `state_dict`",
        "Lightning: `state_dict` without `model.`, not the moving average `ema_model.` in `state_dict`",
    ),
}


def write_safetensors(state: State, path: Path) -> None:
    """Write as training code does, with notes in the file."""
    save_file({key: tensor.clone() for key, tensor in state.items()}, path, metadata={"format": "pt", "epoch": "3"})
