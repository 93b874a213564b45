import numpy as np
import pytest
import torch
from timm.data.mixup import Mixup

from training.data.mixing import make_mixer
from training.data.samples import draw_from
from training.recipe import Augmentation


def draw_batch(images: int) -> tuple[torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(0)
    return torch.rand(images, 3, 16, 16, generator=dice), (torch.rand(images, 5, generator=dice) < 0.4).float()


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_images_and_classes_are_mixed_as_by_timm(mixup: float, cutmix: float) -> None:
    batch, _ = draw_batch(6)
    classes = torch.tensor([0, 2, 4, 4, 1, 3])
    mix = make_mixer(Augmentation(mixup=mixup, cutmix=cutmix))
    assert mix is not None
    timms = Mixup(mixup, cutmix, label_smoothing=0.0, num_classes=5)  # type: ignore[no-untyped-call]
    for seed in range(5):
        with draw_from(seed):
            expected = timms(batch.clone(), classes)
        with draw_from(seed):
            found = mix(batch, torch.nn.functional.one_hot(classes, 5).float())
        assert torch.equal(found[0], expected[0])
        torch.testing.assert_close(found[1], expected[1])


def test_several_labels_are_mixed_in_the_shares_of_the_images() -> None:
    batch, targets = draw_batch(4)
    mix = make_mixer(Augmentation(mixup=1.0))
    assert mix is not None
    with draw_from(3):
        mixed, soft = mix(batch, targets)
    share = ((mixed[0] - batch[3]) / (batch[0] - batch[3]))[0, 0, 0]
    assert 0 < share < 1
    torch.testing.assert_close(soft[0], share * targets[0] + (1 - share) * targets[3])


def test_the_same_seed_mixes_alike_and_the_global_state_stays() -> None:
    batch, targets = draw_batch(4)
    mix = make_mixer(Augmentation(mixup=1.0, cutmix=1.0))
    assert mix is not None
    np.random.seed(1)
    expected = np.random.rand()
    np.random.seed(1)
    parts = []
    for seed in (7, 7, 8):
        with draw_from(seed):
            parts.append(mix(batch, targets)[0])
    assert torch.equal(parts[0], parts[1]) and not torch.equal(parts[0], parts[2])
    assert np.random.rand() == expected


def test_an_odd_batch_stays_as_it_is_and_no_alpha_mixes_nothing() -> None:
    batch, targets = draw_batch(3)
    mix = make_mixer(Augmentation(mixup=1.0))
    assert mix is not None
    assert mix(batch, targets) == (batch, targets)
    assert make_mixer(Augmentation()) is None
