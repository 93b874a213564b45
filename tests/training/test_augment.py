import numpy as np
import torch

from inference.views import VIEWS
from training.augment import crop_batch, draw_crops


def test_the_whole_image_as_a_crop_is_the_image_and_mirrored_is_hflip() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 9, 9, 3), np.uint8)
    for mirror, view in ((1, VIEWS["identity"]), (-1, VIEWS["hflip"])):
        crops = torch.tensor([[[mirror, 0, 0], [0, 1, 0]]] * 2, dtype=torch.float32)
        cropped = crop_batch(torch.from_numpy(pictures).permute(0, 3, 1, 2).float(), crops)
        np.testing.assert_allclose(cropped.permute(0, 2, 3, 1), view(pictures), atol=1e-3)


def test_crops_stay_inside_the_image_and_keep_their_area_and_proportions() -> None:
    crops = draw_crops(2000, 0.6, torch.Generator().manual_seed(0))
    width, height = crops[:, 0, 0].abs(), crops[:, 1, 1]
    assert (width + crops[:, 0, 2].abs()).max() <= 1 + 1e-6
    assert (height + crops[:, 1, 2].abs()).max() <= 1 + 1e-6
    assert (width * height).min() >= 0.6 - 1e-6
    assert (width / height).min() >= 3 / 4 - 1e-6
    assert (width / height).max() <= 4 / 3 + 1e-6
    assert 0.45 < (crops[:, 0, 0] < 0).float().mean() < 0.55
