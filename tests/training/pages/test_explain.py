import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from torch import nn

from inference.basics.errors import TrainingError
from inference.basics.files import hash_file
from inference.images.formats import FORMATS
from inference.images.geometry import Geometry, resize_image
from inference.manifest.decision import Decision, GroupDecision
from inference.manifest.file import read_manifest
from inference.manifest.labels import Labels
from inference.manifest.model import Model, Resize
from inference.manifest.task import Task
from tests.training.small_tasks import CLASSES, NUMBERS
from training.pages.explain import (
    choose_panels,
    describe_look,
    describe_truth,
    draw_page,
    explain,
    locate_square,
    overlay_heat,
    spread_heat,
)
from training.pages.explain_maps import Eye, Look, compute_heat, frame_map, look_at
from zoo.networks import Network
from zoo.tables.out_of_fold import Zoo as OpenZoo
from zoo.tables.out_of_fold import open_zoo

if TYPE_CHECKING:
    from conftest import Zoo

LABELS = Labels((0, 1, 2), ("culture::red", "culture::blue", "tag::red"), {"culture": (0, 1), "tag": (2,)})
DEFAULT_TASK = Task()
SHAPES = [Resize(), Resize("squash", 0.8), Resize("crop", 1.0), Resize("crop", 0.875), Resize("trim")]


class RedAndBlue(nn.Module):
    """Network with three outputs: amount of red, of blue, and of red again; each cell is 4 px."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 2, 4, 4, bias=False)
        with torch.no_grad():
            self.features.weight.copy_(torch.tensor([[1.0, -1, -1], [-1, -1, 1]])[..., None, None].expand(2, 3, 4, 4))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        red, blue = self.features(batch).relu().mean(dim=(2, 3)).unbind(dim=1)
        return torch.stack([red, blue, red], dim=1) - 0.5


def make_manifest(threshold: float, labels: Labels = LABELS, task: Task = DEFAULT_TASK) -> OpenZoo:
    """Return what the maps need of a zoo: its labels, task and thresholds."""
    groups = {group: GroupDecision(threshold, 0, 8) for group in labels.groups}
    rule = "thresholds" if task.selects_labels else "ranked"
    manifest = SimpleNamespace(
        task=task,
        decision=Decision(groups, {}, rule),
        labels=SimpleNamespace(exchanged={}),
        activation_of=lambda _: task.activation,
    )
    return OpenZoo(Path(), manifest, labels)  # type: ignore[arg-type]


def declare_model(size: int | tuple[int, int] = 64, group: str = "all", **changes: Any) -> Model:
    return Model("eye", "red_and_blue", group, size, (0.0,) * 3, (1.0,) * 3, "bilinear", **changes)


def open_red_and_blue(model: Model) -> Eye:
    module = RedAndBlue().eval()
    return Eye(model, Network(module, model.mean, model.std, model.interpolation), module.features, frozenset({"seen"}))


def add_network(zoo: "Zoo", name: str, architecture: str = "test_resnet", size: int = 96) -> None:
    """Give a model of the zoo a network with random weights."""
    document = json.loads(zoo.manifest.read_text())
    torch.manual_seed(len(name))
    model = next(model for model in document["models"] if model["name"] == name)
    outputs = {"culture": 3, "tag": 4, "all": 7}[model["group"]]
    sized = {"img_size": size} if "vit" in architecture or "swin" in architecture else {}
    network = timm.create_model(architecture, num_classes=outputs, **sized)
    path = zoo.folder / f"{name}.safetensors"
    safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, path)
    model.update(architecture=architecture, image_size=size, checkpoint={"file": path.name, "sha256": hash_file(path)})
    zoo.manifest.write_text(json.dumps(document))


@pytest.fixture
def zoo(make_zoo: "Callable[[], Zoo]") -> "Zoo":
    """Return a zoo with networks: culture, tag, and a model of all labels with weight 0, listed first."""
    made = make_zoo()
    document = json.loads(made.manifest.read_text())
    whole = {**document["models"][0], "name": "whole", "group": "all", "out_of_fold": None}
    document["models"].insert(0, whole)
    document["ensemble"]["weights"]["culture"]["whole"] = 0.0
    made.manifest.write_text(json.dumps(document))
    for name in ("culture", "tag", "whole"):
        add_network(made, name)
    return made


def list_ids(zoo: "Zoo") -> list[str]:
    return [line.split(",")[0] for line in zoo.train.read_text().split("\n")[1:] if line]


def test_the_map_matches_gradients_computed_by_hand() -> None:
    torch.manual_seed(0)
    before = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(inplace=True), nn.Conv2d(5, 6, 3, padding=1))
    after = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(6, 4, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(7))
    batch = torch.randn(1, 3, 21, 17)
    module = nn.Sequential(before, after)
    module(batch)
    for output in range(7):
        features = before(batch).detach().requires_grad_()  # (1, 6, 10, 8)
        (gradient,) = torch.autograd.grad(after(features.clone())[0, output], features)
        expected = np.zeros((10, 8))
        for channel in range(6):
            weight = gradient[0, channel].sum().item() / 80
            expected += weight * features[0, channel].detach().numpy()
        found = compute_heat(module, before, batch, output)
        assert found.shape == (10, 8)
        np.testing.assert_allclose(found, np.maximum(expected, 0), atol=1e-7)
        assert found.max() > 0


def test_frozen_weights_give_the_same_map() -> None:
    module, batch = RedAndBlue(), torch.rand(1, 3, 16, 16)
    before = compute_heat(module, module.features, batch, 0)
    np.testing.assert_array_equal(compute_heat(module.requires_grad_(False), module.features, batch, 0), before)


@pytest.mark.parametrize("resize", [*SHAPES, Resize("letterbox")])
@pytest.mark.parametrize("size", [(120, 80), (70, 180)])
def test_the_map_of_a_colour_detector_is_where_the_colour_is(size: tuple[int, int], resize: Resize) -> None:
    image = Image.new("RGB", size, "black")
    middle = size[0] // 2, size[1] // 2
    boxes = {
        # Two cells long, so that it contains one whole cell.
        "red": (middle[0] - 30, middle[1] - 27, middle[0] - 14, middle[1] - 3),
        "blue": (middle[0] + 8, middle[1] + 4, middle[0] + 30, middle[1] + 28),
    }
    for colour, box in boxes.items():
        image.paste(colour, box)
    model = declare_model(resize=resize)
    looks = look_at(open_red_and_blue(model), image, make_manifest(0.0), "culture")
    assert {LABELS.names[look.column] for look in looks} == {"culture::red", "culture::blue"}
    for look in looks:
        left, top, right, bottom = boxes[LABELS.names[look.column].removeprefix("culture::")]
        spread = spread_heat(look.heat, *size, Geometry((64, 64), resize, "bilinear"))
        y, x = np.unravel_index(int(np.nanargmax(spread)), spread.shape)
        assert left <= x < right
        assert top <= y < bottom
        hot = np.nan_to_num(spread) > 0.5 * np.nanmax(spread)
        rows, columns = np.nonzero(hot)
        reach = 2 * 4 * max(size) / 64  # two cells
        assert left - reach < columns.min()
        assert columns.max() < right + reach
        assert top - reach < rows.min()
        assert rows.max() < bottom + reach


@pytest.mark.parametrize(
    ("resize", "views"),
    [
        (Resize(), ("identity",)),
        (Resize("letterbox", 0.8), ("identity", "rot180")),
        (Resize("squash", 0.5), ("top_left",)),
    ],
)
def test_the_map_of_an_oblong_input_is_upright_whatever_the_views(resize: Resize, views: tuple[str, ...]) -> None:
    image = Image.new("RGB", (140, 100), "black")
    image.paste("red", (50, 30, 70, 44))  # left of the centre and above it
    model = declare_model((48, 80), resize=resize, views=views)
    look, *_ = look_at(open_red_and_blue(model), image, make_manifest(0.0), "culture")
    assert look.heat.shape == (12, 20)
    spread = spread_heat(look.heat, 140, 100, frame_map(model))
    y, x = np.unravel_index(int(np.nanargmax(spread)), spread.shape)
    assert 50 <= x < 70 and 30 <= y < 44
    assert describe_look(look, "seen", make_manifest(0.0), None)[1] == "eye, map of 20 x 12 cells"
    is_more = "map of the centre, upright; the score is of all views" in describe_look(
        look, "a", make_manifest(0.0), None
    )
    assert is_more == (views != ("identity",))


def test_a_grey_network_is_explained_on_pillows_grey() -> None:
    noise = np.random.default_rng(2).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 4, 4), nn.Flatten(), nn.LazyLinear(3)).eval()
    grey = torch.from_numpy(np.asarray(image.convert("L"), np.float32) / 255)[None, None]
    expected = module((grey - 0.4) / 0.2).sigmoid()[0].detach().numpy()
    model = dataclasses.replace(declare_model((16, 24), views=("identity",)), mean=(0.4,), std=(0.2,))
    eye = Eye(model, Network(module, model.mean, model.std, "bilinear"), module[0], frozenset())
    looks = look_at(eye, image, make_manifest(0.0), "culture")
    assert {look.column: look.score for look in looks} == pytest.approx({0: expected[0], 1: expected[1]}, abs=1e-5)
    heat = compute_heat(module, module[0], (grey - 0.4) / 0.2, looks[0].column)
    np.testing.assert_allclose(looks[0].heat, heat, atol=1e-6)


def test_under_letterbox_the_whole_image_is_shown_and_the_borders_are_cut_off() -> None:
    for size in ((200, 50), (50, 200)):
        heat = np.zeros((8, 8), np.float32)
        heat[:2], heat[6:], heat[:, :2], heat[:, 6:] = 1, 1, 1, 1
        spread = spread_heat(heat, *size, Geometry((32, 32), Resize("letterbox"), "bilinear"))
        assert not np.isnan(spread).any()
        middle = spread[20:30] if size[0] == 200 else spread[:, 20:30].T
        assert middle[:, [0, -1]].min() > 0.9 and middle[:, 90:110].max() == 0


@pytest.mark.parametrize("resize", SHAPES)
@pytest.mark.parametrize("size", [(250, 90), (64, 200), (101, 101), (240, 7), (1, 33)])
def test_a_map_covers_the_part_that_the_kernels_square_shows(size: tuple[int, int], resize: Resize) -> None:
    width, height = size
    # Each pixel encodes its position: column in red, row in green.
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    image = Image.fromarray(np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8))
    geometry = Geometry((32, 32), resize, "bilinear")
    square = resize_image(image, geometry).astype(float)
    left, top, right, bottom = locate_square(width, height, geometry)
    spread = spread_heat(np.ones((2, 2), np.float32), width, height, geometry)
    seen = ~np.isnan(spread)
    assert (seen.sum(), seen[top:bottom, left:right].all()) == ((right - left) * (bottom - top), True)
    # The centre of the square's first pixel is half a pixel of the square inside the box.
    half = (right - left) / 64, (bottom - top) / 64
    for found, low, high, step in (
        ((square[0, 0, 0], square[0, -1, 0]), left, right, half[0]),
        ((square[0, 0, 1], square[-1, 0, 1]), top, bottom, half[1]),
    ):
        assert found[0] == pytest.approx(low + step - 0.5, abs=1.5 + step / 2)
        assert found[1] == pytest.approx(high - step - 0.5, abs=1.5 + step / 2)


def test_the_probability_is_the_mean_over_the_models_views() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Flatten(), nn.Linear(4, 3)).eval()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    labels = Labels((0, 1, 2), ("tag::a", "tag::b", "tag::c"), {"tag": (0, 1, 2)})
    batch = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    plain, flipped = (module(given).sigmoid()[0].detach().numpy() for given in (batch, batch.flip(3)))
    for views, expected in ((("identity",), plain), (("identity", "hflip"), (plain + flipped) / 2)):
        model = declare_model(8, views=views)
        eye = Eye(model, Network(module, model.mean, model.std, "bilinear"), module[0], frozenset())
        looks = look_at(eye, image, make_manifest(0.0, labels), "tag")
        assert [look.column for look in looks] == np.argsort(-expected).tolist()
        assert [look.score for look in looks] == pytest.approx(sorted(expected, reverse=True))


def test_labels_at_or_above_the_threshold_are_shown_and_always_the_best() -> None:
    image = Image.new("RGB", (64, 64), "black")
    image.paste("red", (0, 0, 32, 32))
    image.paste("blue", (40, 40, 56, 56))
    eye = open_red_and_blue(declare_model())
    both = look_at(eye, image, make_manifest(0.5), "culture")
    assert [look.column for look in both] == [0, 1]
    red, blue = (look.score for look in both)
    assert [look.column for look in look_at(eye, image, make_manifest((red + blue) / 2), "culture")] == [0]
    assert [look.column for look in look_at(eye, image, make_manifest(1.0), "culture")] == [0]
    assert [look.column for look in look_at(eye, image, make_manifest(1.0), "tag")] == [2], "only labels of the group"


def test_a_caption_has_label_probability_truth_and_map_size() -> None:
    eye = open_red_and_blue(declare_model())
    look = Look(eye, 1, 0.456, 0.4, np.ones((2, 3), np.float32))
    truth, zoo = np.array([True, False, True]), make_manifest(0.4)
    assert describe_look(look, "other", zoo, None) == ["culture::blue  0.46", "eye, map of 3 x 2 cells"]
    assert describe_look(look, "seen", zoo, truth) == [
        "culture::blue  0.46, false",
        "eye, map of 3 x 2 cells",
        "image not used in its training",
    ]
    nowhere = dataclasses.replace(look, column=2, threshold=0.5, heat=np.zeros((2, 2), np.float32))
    assert describe_look(nowhere, "other", zoo, truth) == [
        "tag::red  0.46, true",
        "eye, map of 2 x 2 cells",
        "image possibly used in its training",
        "best label, but below the threshold 0.5",
        "no support for the label in the map",
    ]


def test_classes_are_shown_by_probability_and_numbers_in_the_competitions_units() -> None:
    image = Image.new("RGB", (64, 64), "black")
    image.paste("red", (0, 0, 32, 32))
    eye = open_red_and_blue(declare_model())
    labels = Labels((0, 1, 2), ("red", "blue", "again"), {"labels": (0, 1, 2)})
    classes = make_manifest(0.0, labels, CLASSES)
    looks = look_at(eye, image, classes, "labels")
    assert sum(look.score for look in looks) == pytest.approx(1) and len(looks) == 3
    soft = np.array([0.2, 0.8, 0.0], np.float32)
    assert describe_truth(soft, classes) == "blue 0.80, red 0.20"
    assert describe_look(looks[0], "seen", classes, soft)[0] == f"red  {looks[0].score:.2f}"
    number = Labels((0,), ("Side",), {"labels": (0,)})
    numbers = make_manifest(0.0, number, NUMBERS)
    (look,) = look_at(eye, image, numbers, "labels")
    raw = eye.network.module(torch.from_numpy(np.array(image) / 255).permute(2, 0, 1)[None].float())[0, 0].item()
    assert look.score == pytest.approx(40 * raw, rel=1e-4)
    assert describe_look(look, "seen", numbers, np.array([0.5], np.float32))[0] == f"Side: predicted {40 * raw:.4g}"
    assert describe_truth(np.array([0.5], np.float32), numbers) == "20"


def test_an_overlay_is_grey_at_0_red_at_the_maximum_and_dark_outside_the_square() -> None:
    spread = np.array([[0, 2, np.nan]], np.float32)
    grey, red, dark = overlay_heat(Image.new("RGB", (3, 1), (128, 128, 128)), spread)[0]
    assert grey == pytest.approx([128 / 255] * 3)
    assert red[0] > 1.5 * max(red[1:])
    assert dark == pytest.approx([0.4 * 128 / 255] * 3)


@pytest.mark.parametrize("size", [(400, 20), (20, 400), (150, 100), (1500, 1000)])
def test_a_page_has_one_panel_per_map_and_names_unchanged(size: tuple[int, int]) -> None:
    labels = Labels((0, 1), ("tag::$100_{bill$", "tag::" + "very long " * 12), {"tag": (0, 1)})
    eye = open_red_and_blue(declare_model())
    looks = [Look(eye, column, 0.5, 0.4, np.eye(3, dtype=np.float32)) for column in (0, 1)]
    figure = draw_page(
        "an_id", Image.new("RGB", size, "green"), looks, make_manifest(0.4, labels), np.array([True, False])
    )
    figure.draw_without_rendering()
    titles = [axes.get_title() for axes in figure.axes]
    assert [title.split("\n")[0] for title in titles][:2] == ["an_id", "tag::$100_{bill$  0.50, true"]
    assert len(titles) == 3
    whole = figure.bbox
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    for box in boxes:
        assert whole.x0 - 1 <= box.x0
        assert box.x1 <= whole.x1 + 1
        assert whole.y0 - 1 <= box.y0
        assert box.y1 <= whole.y1 + 1
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])
    for axes in figure.axes:
        assert axes.bbox.width / axes.bbox.height == pytest.approx(size[0] / size[1], rel=0.02)


def test_one_file_per_image_and_the_same_bytes_each_time(
    zoo: "Zoo", museum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = list_ids(zoo)[:2]
    explain(zoo.manifest, museum / "train", [*ids, ids[0]], tmp_path / "new" / "a", train=zoo.train)
    explain(zoo.manifest, museum / "train", ids, tmp_path / "b", train=zoo.train)
    assert sorted(path.name for path in (tmp_path / "new" / "a").iterdir()) == sorted(f"{image}.png" for image in ids)
    for image in ids:
        first, second = (tmp_path / folder / f"{image}.png" for folder in ("new/a", "b"))
        assert first.read_bytes() == second.read_bytes()
        with Image.open(first) as page:
            assert page.width > 600
    assert capsys.readouterr().out.splitlines()[:2] == [f"{tmp_path}/new/a/{image}.png" for image in ids]


def test_the_default_is_the_first_model_with_a_weight_preferably_of_the_group_only(zoo: "Zoo") -> None:
    def show(*names: str) -> list[tuple[str, str]]:
        return [(model.name, group) for model, group in choose_panels(open_zoo(zoo.manifest), names)]

    assert show() == [("culture", "culture"), ("tag", "tag")]
    document = json.loads(zoo.manifest.read_text())
    document["ensemble"]["weights"] = {"culture": {"culture": 1, "whole": 1}, "tag": {"tag": 0, "whole": 0.5}}
    document["models"][1].update(name="culture_f1", member="culture", fold=1)
    document["ensemble"]["weights"]["culture"]["culture_f1"] = document["ensemble"]["weights"]["culture"].pop("culture")
    zoo.manifest.write_text(json.dumps(document))
    assert show() == [("culture_f1", "culture"), ("whole", "tag")]
    assert show("whole", "culture") == [("whole", "culture"), ("whole", "tag"), ("culture_f1", "culture")]


def ask_elsewhere(zoo: "Zoo", images: Path) -> tuple[list[str], list[str], str]:
    known = list_ids(zoo)[3]
    return [known[:-2]], [], f"{images}: no image '{known[:-2]}'; did you mean {known}?"


def ask_nothing_like(zoo: "Zoo", images: Path) -> tuple[list[str], list[str], str]:
    return [list_ids(zoo)[0], "???"], [], f"{images}: no image '???'; wanted one of its 60 images"


def tear_image(zoo: "Zoo", images: Path) -> tuple[list[str], list[str], str]:
    (images / "torn.png").write_bytes(b"no image")
    return (
        ["torn"],
        [],
        f"{images}: image torn.png: found text; wanted one of {', '.join(FORMATS)}; wanted a readable image",
    )


def misspell_model(zoo: "Zoo", images: Path) -> tuple[list[str], list[str], str]:
    return list_ids(zoo)[:1], ["hole"], f"{zoo.manifest}: no model 'hole'; did you mean whole?"


def take_features(zoo: "Zoo", images: Path) -> tuple[list[str], list[str], str]:
    document = json.loads(zoo.manifest.read_text())
    document["models"].append(
        document["models"][0] | {"name": "extra", "group": "features", "outputs": 7, "out_of_fold": None}
    )
    zoo.manifest.write_text(json.dumps(document))
    return (
        list_ids(zoo)[:1],
        ["extra"],
        f"{zoo.manifest}: model extra: its outputs are no labels (group 'features'); choose other models",
    )


def weigh_nothing(zoo: "Zoo", images: Path) -> tuple[list[str], list[str], str]:
    document = json.loads(zoo.manifest.read_text())
    document["ensemble"]["weights"] = {"culture": {}, "tag": {}}
    zoo.manifest.write_text(json.dumps(document))
    return list_ids(zoo)[:1], [], f"{zoo.manifest}: no model has a weight above 0; choose models with --models"


def take_transformer(zoo: "Zoo", images: Path) -> tuple[list[str], list[str], str]:
    add_network(zoo, "tag", "test_vit", 64)
    return (
        list_ids(zoo)[:1],
        ["tag"],
        "model tag: last feature layer, blocks.5 of test_vit: found 17 x 64; wanted channels x height x width of "
        "several cells, as in convolutional networks; choose other models with --models",
    )


def take_one_cell(zoo: "Zoo", images: Path) -> tuple[list[str], list[str], str]:
    add_network(zoo, "tag", "test_resnet", 32)
    return (
        list_ids(zoo)[:1],
        ["tag"],
        "model tag: last feature layer, layer4 of test_resnet: found 96 x 1 x 1; wanted channels x height x width of "
        "several cells, as in convolutional networks; choose other models with --models",
    )


@pytest.mark.parametrize(
    "spoil",
    [
        ask_elsewhere,
        ask_nothing_like,
        tear_image,
        misspell_model,
        take_features,
        weigh_nothing,
        take_transformer,
        take_one_cell,
    ],
)
def test_images_and_models_that_cannot_be_explained_are_an_error(
    spoil: "Callable[[Zoo, Path], tuple[list[str], list[str], str]]", zoo: "Zoo", museum: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for path in (museum / "train").iterdir():
        (images / path.name).symlink_to(path)
    ids, names, message = spoil(zoo, images)
    with pytest.raises(TrainingError) as caught:
        explain(zoo.manifest, images, ids, tmp_path / "out", names)
    assert str(caught.value) == message
    assert not list((tmp_path / "out").glob("*"))


def test_a_missing_folder_and_changed_out_of_fold_ids_are_an_error(zoo: "Zoo", museum: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=re.escape(f"{tmp_path}/nowhere: no such folder of images")):
        explain(zoo.manifest, tmp_path / "nowhere", ["a"], tmp_path / "out")
    (zoo.folder / "tag.oof.ids.txt").write_text("changed\n")
    with pytest.raises(Exception, match=re.escape("`tag.out_of_fold.ids.sha256`: ")):
        explain(zoo.manifest, museum / "train", list_ids(zoo)[:1], tmp_path / "out")
    assert read_manifest(zoo.manifest).models[2].name == "tag"
