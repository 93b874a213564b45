import math

import pytest
import torch

from training.fit.weights import BestWeights


def make_module(value: float) -> torch.nn.Module:
    module = torch.nn.Linear(1, 1)
    with torch.no_grad():
        module.weight.fill_(value)
    return module


@pytest.mark.parametrize(
    ("figures", "best"),
    [
        ([0.2, 0.9, 0.5], 2),
        ([0.9, 0.9, 0.1], 1),
        ([math.nan, 0.1, 0.1], 2),
        ([math.nan, math.nan], 1),
        ([-3.0, -1.0, -2.0], 2),
    ],
)
def test_the_first_epoch_with_the_highest_figure_is_kept_also_over_a_saved_state(
    figures: list[float], best: int
) -> None:
    kept = BestWeights()
    for epoch, figure in enumerate(figures, 1):
        resumed = BestWeights()
        resumed.load_state_dict(kept.state_dict())
        kept = resumed
        kept.compare(figure, epoch, make_module(epoch))
    assert (kept.epoch, kept.weights["weight"].item()) == (best, best)


def test_later_updates_do_not_change_the_kept_weights() -> None:
    kept, module = BestWeights(), make_module(1.0)
    kept.compare(0.5, 1, module)
    with torch.no_grad():
        module.get_parameter("weight").fill_(7.0)
    assert kept.weights["weight"].item() == 1
