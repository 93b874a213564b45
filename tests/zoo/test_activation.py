import math

import pytest
import torch

from zoo.activation import activate

LOGITS = torch.tensor([[0.0, 1.0, -2.0], [3.0, 3.0, 3.0]])


def test_sigmoid_gives_each_label_its_probability() -> None:
    found = activate(LOGITS, "sigmoid").ravel().tolist()
    assert found == pytest.approx([1 / (1 + math.exp(-logit)) for logit in LOGITS.ravel().tolist()])


def test_softmax_shares_1_among_the_labels_of_an_image() -> None:
    parts = [math.exp(logit) for logit in (0.0, 1.0, -2.0)]
    found = activate(LOGITS, "softmax")
    assert found[0].tolist() == pytest.approx([part / sum(parts) for part in parts])
    assert found[1].tolist() == pytest.approx([1 / 3] * 3)


def test_identity_changes_nothing() -> None:
    assert torch.equal(activate(LOGITS, "identity"), LOGITS)
