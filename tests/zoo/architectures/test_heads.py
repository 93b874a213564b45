"""Several heads joined into one array, against the columns of labels.csv."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from inference.basics.errors import CheckpointError
from zoo.architectures.heads import join_heads

HEADS, NAMES = ((0, 3), (1, 2, 4)), ("culture", "tag")
CULTURE, TAG = torch.tensor([[10.0, 13.0]]), torch.tensor([[11.0, 12.0, 14.0]])
JOINED = [[10.0, 11.0, 12.0, 13.0, 14.0]]


class Heads(torch.nn.Module):
    def __init__(self, answer: Callable[[], Any]) -> None:
        super().__init__()
        self.answer, self.layer = answer, torch.nn.Linear(1, 1)

    def forward(self, _images: torch.Tensor) -> Any:
        return self.answer()


def run(answer: Callable[[], Any], heads: Any = HEADS, names: Any = NAMES, order: Any = ()) -> list[list[float]]:
    network = Heads(answer)
    before = list(network.state_dict())
    join_heads(network, 5, heads, names, order)
    assert list(network.state_dict()) == before
    found: list[list[float]] = network(torch.zeros(1)).tolist()
    return found


@pytest.mark.parametrize(
    "answer",
    [
        lambda: (CULTURE, TAG),
        lambda: [CULTURE, TAG],
        lambda: {"tag": TAG, "culture": CULTURE},
        lambda: torch.tensor(JOINED),
    ],
)
def test_heads_are_joined_in_the_order_of_the_labels(answer: Callable[[], Any]) -> None:
    assert run(answer) == JOINED


@pytest.mark.parametrize("answer", [lambda: (torch.tensor(JOINED),), lambda: {"logits": torch.tensor(JOINED)}])
def test_a_network_of_one_head_may_return_it_in_a_tuple_or_dict(answer: Callable[[], Any]) -> None:
    assert run(answer, (), ()) == JOINED


def test_outputs_of_another_order_are_put_in_ours() -> None:
    order = (4, 0, 3, 1, 2)
    theirs = torch.zeros(1, 5)
    for ours, place in enumerate(order):
        theirs[0, place] = JOINED[0][ours]
    assert run(lambda: theirs, (), (), order) == JOINED
    assert run(lambda: (theirs[:, :2], theirs[:, 2:]), HEADS, NAMES, order) == JOINED


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda: (CULTURE,), "the network returns 1 heads; wanted 2: culture, tag"),
        (lambda: (TAG, CULTURE), "the network: head culture has the shape (images, 3); wanted (images, 2)"),
        (
            lambda: {"culture": CULTURE, "tags": TAG},
            "the network returns a dict of culture, tags; wanted culture, tag, one per group",
        ),
        (lambda: (CULTURE, TAG[0]), "the network: head tag has the shape (images); wanted (images, 3)"),
        (lambda: (CULTURE, None), "the network: head tag is NoneType; wanted a tensor"),
        (lambda: "x", "the network returns str; wanted a tensor, or a tuple or dict with one per group"),
        (lambda: torch.zeros(2, 4), "the network: its output has the shape (images, 4); wanted (images, 5)"),
        (
            lambda: torch.zeros(2, 5, 7, 7),
            "the network: its output has the shape (images, 5, 7, 7); wanted (images, 5)",
        ),
    ],
)
def test_other_shapes_are_refused_per_head(answer: Callable[[], Any], message: str) -> None:
    with pytest.raises(CheckpointError) as error:
        run(answer)
    assert str(error.value) == message


def test_a_network_without_groups_names_what_it_returns() -> None:
    with pytest.raises(CheckpointError, match=r"^the network returns 2 heads; wanted 1: all labels in one$"):
        run(lambda: (CULTURE, TAG), (), ())
    with pytest.raises(
        CheckpointError, match=r"^the network returns a dict of a, b; wanted one output, one per group$"
    ):
        run(lambda: {"a": CULTURE, "b": TAG}, (), ())


def test_joined_heads_are_exported_as_they_run() -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.culture, self.tag = torch.nn.Linear(4, 2), torch.nn.Linear(4, 3)

        def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"tag": self.tag(features), "culture": self.culture(features)}

    network = Two().eval()
    join_heads(network, 5, HEADS, NAMES)
    wrapped, features = torch.nn.Sequential(network), torch.rand(2, 4)
    program = torch.export.export(wrapped, (features,), dynamic_shapes=({0: torch.export.Dim("images")},))
    other = torch.rand(7, 4)
    assert torch.equal(program.module()(other), network(other))
    assert torch.equal(network(other)[:, [0, 3]], network.culture(other))
