import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from inference.basics.errors import CheckpointError, TrainingError
from training.fit.distil import AttentionTransfer, attention_distance, load_teacher, watch_stages
from training.recipe import Teacher
from zoo.networks import Design, Network, create_network

if TYPE_CHECKING:
    from conftest import Zoo


def distance_slowly(student: list[torch.Tensor], teacher: list[torch.Tensor]) -> float:
    total = 0.0
    for own, other in zip(student, teacher, strict=True):
        images = []
        for one, two in zip(own.numpy(), other.numpy(), strict=True):
            scaled = []
            for part in (one, two):
                columns, rows = range(part.shape[2]), range(part.shape[1])
                map_ = np.array([[sum(float(value) ** 2 for value in part[:, y, x]) for x in columns] for y in rows])
                scaled.append(map_ / np.sqrt((map_**2).sum()))
            images.append(((scaled[0] - scaled[1]) ** 2).mean())
        total += float(np.mean(images))
    return total


def test_the_distance_equals_the_papers_formula() -> None:
    torch.manual_seed(0)
    student = [torch.randn(3, 5, 4, 4), torch.randn(3, 8, 2, 2)]
    teacher = [torch.randn(3, 7, 4, 4), torch.randn(3, 2, 2, 2)]
    assert attention_distance(student, teacher).item() == pytest.approx(distance_slowly(student, teacher), rel=1e-5)


def test_proportional_maps_have_distance_0() -> None:
    maps = torch.rand(2, 3, 4, 4)
    assert attention_distance([maps], [5 * maps]).item() == pytest.approx(0, abs=1e-9)


def test_the_larger_map_is_averaged_to_the_smaller_size() -> None:
    small = torch.rand(2, 1, 2, 2).sqrt()
    large = small.repeat_interleave(3, dim=2).repeat_interleave(3, dim=3)
    assert attention_distance([small], [large]).item() == pytest.approx(0, abs=1e-9)


def make_network(architecture: str, seed: int) -> Network:
    torch.manual_seed(seed)
    network = create_network(Design(architecture, (32, 32), 4))
    network.module.eval()
    return network


def test_a_network_has_distance_0_from_itself_and_not_from_another() -> None:
    student, same, other = (
        make_network("test_resnet", 0),
        make_network("test_resnet", 0),
        make_network("test_resnet", 1),
    )
    batch = torch.rand(2, 3, 32, 32)
    for teacher, near in ((same, True), (other, False)):
        transfer = AttentionTransfer(student, teacher, 1.0, torch.device("cpu"))
        student.module(batch)
        assert (transfer.measure(batch).item() < 1e-9) is near


def test_the_teacher_gets_the_image_in_its_own_normalisation() -> None:
    student, teacher = make_network("test_resnet", 0), make_network("test_resnet", 0)
    image = torch.rand(2, 3, 32, 32)
    other = Network(teacher.module, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "bicubic")
    transfer = AttentionTransfer(student, other, 1.0, torch.device("cpu"))
    seen = []
    other.module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (student.mean, student.std))
    batch = (image - mean) / std
    student.module(batch)
    transfer.measure(batch)
    own_mean, own_std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (other.mean, other.std))
    torch.testing.assert_close(seen[0], (image - own_mean) / own_std, rtol=0, atol=1e-5)


def test_the_weight_multiplies_the_distance() -> None:
    student, teacher = make_network("test_resnet", 0), make_network("test_resnet", 1)
    batch = torch.rand(2, 3, 32, 32)
    measured = []
    for weight in (1.0, 2.5):
        transfer = AttentionTransfer(student, teacher, weight, torch.device("cpu"))
        student.module(batch)
        measured.append(transfer.measure(batch).item())
    assert measured[1] == pytest.approx(2.5 * measured[0])
    assert measured[0] > 0


def test_only_the_student_gets_gradients_and_its_distance_falls() -> None:
    student, teacher = make_network("test_resnet", 0), make_network("test_efficientnet", 1)
    transfer = AttentionTransfer(student, teacher, 1.0, torch.device("cpu"))
    optimizer = torch.optim.Adam(student.module.parameters(), lr=1e-3)
    batch = torch.rand(4, 3, 32, 32)
    distances = []
    for _ in range(12):
        student.module(batch)
        loss = transfer.measure(batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        distances.append(loss.item())
    assert distances[-1] < 0.7 * distances[0]
    assert all(parameter.grad is None for parameter in teacher.module.parameters())


def test_a_network_without_stages_is_refused() -> None:
    with pytest.raises(TrainingError, match=re.escape("`teacher`: Linear has no `feature_info`")):
        watch_stages(torch.nn.Linear(2, 2))


def test_the_deepest_stages_are_watched(tmp_path: Path) -> None:
    assert list(watch_stages(create_network(Design("resnet34", (64, 64), 2)).module)) == ["layer2", "layer3", "layer4"]


@pytest.mark.parametrize(
    ("teacher", "fold", "message"),
    [
        ("old", 0, "`teacher.model`: old sees 1 channels; wanted 3, as `channels` says"),
        ("old", 1, "`teacher.model`: old held out fold 0; wanted fold 1, because other teachers were trained on the "
         "held-out images"),
        ("pair", 2, "`teacher.model`: old held out fold 0, new held out fold 1; wanted fold 2, because other teachers "
         "were trained on the held-out images"),
        ("pai", 0, "`teacher.model`: no member or model pai in {manifest}; it has pair"),
    ],
)  # fmt: skip
def test_a_teacher_is_found_by_member_and_fold_whatever_the_models_are_called(
    teacher: str, fold: int, message: str, make_zoo: "Callable[[], Zoo]"
) -> None:
    manifest = make_zoo().manifest
    document = json.loads(manifest.read_text())
    for place, model in enumerate(document["models"]):
        model |= {"name": ("old", "new")[place], "member": "pair", "fold": place, "group": "tag", "mean": [0.5]}
        model["std"] = [0.5]
    document["ensemble"]["weights"] = {"culture": {}, "tag": {}}
    manifest.write_text(json.dumps(document))
    with pytest.raises(TrainingError) as caught:
        load_teacher(Teacher(str(manifest), teacher), fold, 3)
    assert str(caught.value) == message.format(manifest=manifest)
    with pytest.raises(CheckpointError, match=r"^model new: "):  # found, but the zoo of this test has no weights
        load_teacher(Teacher(str(manifest), "pair"), 1, 1)
