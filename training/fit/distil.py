"""Attention transfer: a student learns the attention maps of its teacher beside the labels."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn.functional import adaptive_avg_pool2d, normalize

from inference.basics.errors import TrainingError
from inference.manifest.model import list_members, name_member
from training.recipe import Teacher
from zoo.networks import Network, open_network
from zoo.tables.out_of_fold import open_zoo

STAGES = 3


def load_teacher(teacher: Teacher, fold: int, channels: int) -> Network:
    """Load the recipe's teacher that held out `fold`: any other was trained on the held-out images.

    `channels`: that the student sees. Raises TrainingError: the manifest has no such model; ManifestError.
    """
    zoo = open_zoo(Path(teacher.manifest))
    named = [model for model in zoo.manifest.models if teacher.model in (model.name, name_member(model))]
    if not named:
        known = ", ".join(list_members(zoo.manifest.models))
        raise TrainingError(f"`teacher.model`: no member or model {teacher.model} in {zoo.path}; it has {known}")
    model = next((model for model in named if model.fold == fold), None)
    if model is None:
        found = ", ".join(f"{model.name} held out fold {model.fold}" for model in named)
        raise TrainingError(
            f"`teacher.model`: {found}; wanted fold {fold}, because other teachers were trained on the held-out images"
        )
    if model.channels != channels:
        raise TrainingError(
            f"`teacher.model`: {model.name} sees {model.channels} channels; wanted {channels}, as `channels` says"
        )
    return open_network(model, zoo.home, zoo.labels)


class AttentionTransfer:
    """The distance between the attention maps of two networks on the same batch.

    Compares the last STAGES stages of timm's `feature_info`, the deepest with the deepest; the larger map is averaged
    to the smaller size. The teacher's input is the student's batch, converted to the teacher's normalisation.
    """

    def __init__(self, student: Network, teacher: Network, weight: float, device: torch.device):
        self.weight = weight
        self.teacher = teacher.module.to(device).eval().requires_grad_(False)
        self.scale, self.shift = (
            torch.tensor(numbers, device=device).view(1, -1, 1, 1)
            for numbers in (
                [own / other for own, other in zip(student.std, teacher.std, strict=True)],
                [
                    (own - other) / deviation
                    for own, other, deviation in zip(student.mean, teacher.mean, teacher.std, strict=True)
                ],
            )
        )
        self.student_maps, self.teacher_maps = watch_stages(student.module), watch_stages(self.teacher)

    def measure(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the weighted distance, one number, on the student's last batch, (images, channels, height, width)."""
        with torch.no_grad():
            self.teacher(batch * self.scale + self.shift)
        return self.weight * attention_distance(list(self.student_maps.values()), list(self.teacher_maps.values()))


def watch_stages(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Register hooks that keep the latest outputs of the last STAGES stages; return these outputs by name.

    Raises TrainingError for a network without `feature_info`.
    """
    stages = [stage["module"] for stage in getattr(module, "feature_info", [])][-STAGES:]
    if not stages:
        raise TrainingError(f"`teacher`: {type(module).__name__} has no `feature_info`; use another architecture")
    seen: dict[str, torch.Tensor] = {}

    def keep(stage: str) -> None:
        def hook(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
            seen[stage] = output

        module.get_submodule(stage).register_forward_hook(hook)

    for stage in stages:
        seen[stage] = torch.empty(0)
        keep(stage)
    return seen


def attention_distance(student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the squared distance of normalised attention maps, summed over stages and averaged over images.

    Each stage: (images, channels, height, width). A map is the sum of the squared activations over channels, scaled to
    length 1. Method: Zagoruyko and Komodakis, Paying More Attention to Attention, 2017, equation 2 with p = 2; as in
    their published code, the distance is squared and averaged over the positions of the map.
    """
    total = torch.zeros((), device=student[0].device)
    for own, other in zip(student, teacher, strict=True):
        size = (min(own.shape[2], other.shape[2]), min(own.shape[3], other.shape[3]))
        own_map, other_map = (
            normalize(adaptive_avg_pool2d(part.float().square().mean(dim=1, keepdim=True), size).flatten(1))
            for part in (own, other)
        )
        total = total + (own_map - other_map).square().mean()
    return total
