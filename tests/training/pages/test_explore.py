import base64
import colorsys
import html
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageStat
from scipy.stats import ks_2samp

from inference.basics.errors import OutputError, VitrineError
from inference.images.formats import FORMATS
from training.pages.explore import explore, measure_colours, measure_gap

TIMES = "\N{MULTIPLICATION SIGN}"
STRANGE_LABELS = ("tag::<script>alert(1)</script>", 'tag::a "b" & c', "c$$lt_^r$::$x^", "_e::<i>", "_e::{{ 1 }}")
CHANNELS = ("red", "green", "blue", "hue", "saturation", "value")


class PageReader(HTMLParser):
    """The text of a page, and the cells of its tables and the items of its lists, by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self._rows: list[list[str]] = []
        self._into_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag in ("table", "ul"):
            self._rows = self.tables.setdefault(dict(attrs).get("id") or "", [])
        elif tag in ("tr", "li"):
            self._rows.append([])
        if tag in ("td", "th", "li"):
            self._rows[-1].append("")
            self._into_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "li"):
            self._into_cell = False

    def handle_data(self, data: str) -> None:
        self.text += " ".join(data.split()) + " "
        if self._into_cell:
            self._rows[-1][-1] += data.strip()

    def row(self, table: str, head: str) -> list[str]:
        (cells,) = (cells[1:] for cells in self.tables[table] if cells[0] == head)
        return cells


@dataclass(frozen=True)
class Visit:
    """A data folder and its page."""

    data: Path
    text: str
    page: PageReader


def write_table(path: Path, rows: list[tuple[str, str]], header: str) -> None:
    path.write_text("".join(f"{line}\n" for line in [header, *(f'{first},"{second}"' for first, second in rows)]))


def write_data(folder: Path, labels: Sequence[str], images: dict[str, tuple[tuple[int, int], str]]) -> Path:
    """Write a folder with Kaggle's layout; `images`: size and attribute_ids by id."""
    (folder / "train").mkdir(parents=True)
    write_table(folder / "labels.csv", [(str(i), name) for i, name in enumerate(labels)], "attribute_id,attribute_name")
    write_table(folder / "train.csv", [(name, ids) for name, (_, ids) in images.items()], "id,attribute_ids")
    for number, (name, (size, _)) in enumerate(images.items()):
        Image.new("RGB", size, (40 * number % 256, 90, 200)).save(folder / "train" / f"{name}.png")
    return folder


def read_pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image, np.float64)  # (height, width, 3)


def look(data: Path, out: Path, images: int | None = None) -> Visit:
    explore(data, out, images)
    text = out.read_text(encoding="utf-8")
    return Visit(data, text, PageReader(text))


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the plots, which take most of the time of a page."""
    for name in ("colours", "sizes", "ratios", "counts", "lengths"):
        monkeypatch.setattr(f"training.pages.explore_plots.plot_{name}", lambda *_: "data:,")


@pytest.fixture(scope="module")
def visit(museum: Path, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    """Return the page of the museum with a test folder of 20 darker copies of its images."""
    data = Path(shutil.copytree(museum, tmp_path_factory.mktemp("explored") / "museum"))
    (data / "test").mkdir()
    for number, path in enumerate(sorted((data / "train").iterdir())[:20]):
        with Image.open(path) as image:
            image.point(lambda value: value * 3 // 5).save(data / "test" / f"{number:04}.png")
    return look(data, data.parent / "explore.html")


@pytest.fixture(scope="module")
def strange_visit(tmp_path_factory: pytest.TempPathFactory) -> Visit:
    """Return a page with HTML and formulas as names, a group and an image without labels, no test folder."""
    folder = tmp_path_factory.mktemp("strange")
    images = {f"<a>{place}": ((30 + 30 * place, 30), str(place % 3)) for place in range(4)} | {"bare": ((30, 30), "")}
    names = [name.replace('"', '""') for name in STRANGE_LABELS]
    return look(write_data(folder / "<u>data", names, images), folder / "explore.html")


def read_truth(data: Path) -> pd.DataFrame:
    """Read train.csv with pandas: images as rows, labels as columns by full name."""
    names = pd.read_csv(data / "labels.csv", index_col="attribute_id")["attribute_name"]
    train = pd.read_csv(data / "train.csv", dtype=str, index_col="id")["attribute_ids"]
    return train.str.get_dummies(" ").rename(columns=lambda label: names[int(label)]).reindex(columns=names).fillna(0)


def test_the_page_has_no_external_resources(visit: Visit) -> None:
    assert "http" not in visit.text
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _, _ in visit.page.attributes}
    assert "<script" not in visit.text
    assert not re.search(r"url\(|@import|javascript:", visit.text)
    addresses = [value for _, name, value in visit.page.attributes if name in ("src", "href")]
    assert {re.sub(r"[,;#].*", "", address, flags=re.DOTALL) for address in addresses} == {
        "",
        "data:image/svg+xml",
        "data:image/jpeg",
    }
    for address in addresses:
        if address.startswith("data:image/svg"):
            plot = base64.b64decode(address.partition(",")[2]).decode()
            assert all(link[0] == "#" or link.startswith("data:") for link in re.findall(r'href="([^"]*)"', plot))


def test_every_link_of_the_page_has_a_target(visit: Visit) -> None:
    ids = [value for _, name, value in visit.page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value[1:] for _, name, value in visit.page.attributes if name == "href"} <= set(ids)


def test_the_figures_of_an_image_match_imagestat_and_colorsys() -> None:
    pixels = np.random.default_rng(3).integers(5, 250, (9, 13, 3), dtype=np.uint8)
    figures = measure_colours(Image.fromarray(pixels))
    statistics = ImageStat.Stat(Image.fromarray(pixels))
    assert figures[:3, 0] == pytest.approx(statistics.mean)
    assert figures[:3, 1] == pytest.approx(statistics.stddev)
    assert figures[:3, 2:].tolist() == [list(pair) for pair in statistics.extrema]
    hsv = np.array([colorsys.rgb_to_hsv(*(pixel / 255)) for pixel in pixels.reshape(-1, 3)]) * 255
    assert figures[3:, 0] == pytest.approx(hsv.mean(axis=0), abs=1)
    assert figures[3:, 1] == pytest.approx(hsv.std(axis=0), abs=1)
    assert figures[3:, 2] == pytest.approx(hsv.min(axis=0), abs=1)
    assert figures[3:, 3] == pytest.approx(hsv.max(axis=0), abs=1)


def test_the_gap_matches_scipy() -> None:
    dice = np.random.default_rng(0)
    first, second = dice.integers(0, 50, 300).astype(float), dice.integers(10, 60, 70).astype(float)
    assert measure_gap(first, second) == pytest.approx(ks_2samp(first, second).statistic)


def test_the_colours_on_the_page_are_the_mean_over_the_images_of_each_part(visit: Visit) -> None:
    means = {}
    for part in ("train", "test"):
        pictures = [read_pixels(path).reshape(-1, 3) for path in (visit.data / part).iterdir()]
        means[part] = np.array(
            [[(p.mean(axis=0)), p.std(axis=0), p.min(axis=0), p.max(axis=0)] for p in pictures]
        )  # (images, figures, channels)
    for place, channel in enumerate(CHANNELS[:3]):
        shown = [float(cell) for cell in visit.page.row("channels", channel)]
        wanted = [means[part][:, figure, place].mean() for figure in range(4) for part in ("train", "test")]
        assert shown[:-1] == pytest.approx(wanted, abs=0.0501)
        gap = ks_2samp(means["train"][:, 0, place], means["test"][:, 0, place]).statistic
        assert shown[-1] == pytest.approx(gap, abs=0.000501)


def test_normalisation_uses_all_pixels_of_train_with_equal_weight_per_image(visit: Visit) -> None:
    pictures = [read_pixels(path).reshape(-1, 3) / 255 for path in (visit.data / "train").iterdir()]
    means = np.mean([picture.mean(axis=0) for picture in pictures], axis=0)
    squares = np.mean([(picture**2).mean(axis=0) for picture in pictures], axis=0)
    shown = re.findall(r'<code id="(?:mean|deviation)">(.*?)</code>', visit.text)
    figures = [[float(word) for word in line.split(", ")] for line in shown]
    assert figures[0] == pytest.approx(means, abs=0.00051)
    assert figures[1] == pytest.approx(np.sqrt(squares - means**2), abs=0.00051)


def test_label_counts_match_pandas(visit: Visit) -> None:
    truth = read_truth(visit.data)
    assert "7 labels: 3 culture, 4 tag." in visit.page.text
    for group in ("culture", "tag"):
        counts = truth.filter(like=f"{group}::").sum().astype(int)
        shown = visit.page.tables[f"most-{group}"][1:] + visit.page.tables[f"least-{group}"][:0:-1]
        assert [int(images) for _, images, _ in shown] == sorted(counts, reverse=True)
        assert {f"{group}::{name}": int(images) for name, images, _ in shown} == counts.to_dict()
        assert [share for _, _, share in shown] == [f"{int(images) / 0.6:.1f} %" for _, images, _ in shown]
        ranges = pd.cut(counts, [-1, 19, 99, 999, np.inf]).value_counts(sort=False).tolist()
        assert visit.page.row("rarity", group) == [
            str(number) for number in (len(counts), ranges[0], (counts == 0).sum(), *ranges[1:])
        ]


@pytest.mark.parametrize("images", [0, 19, 20, 99, 100, 999, 1000])
def test_a_label_is_in_the_range_that_the_table_names(images: int) -> None:
    from training.pages.explore import count_rarity

    wanted = [images < 20, 20 <= images <= 99, 100 <= images <= 999, images >= 1000]
    assert count_rarity([images]) == [int(is_here) for is_here in wanted]


def test_labels_per_image_match_pandas(visit: Visit) -> None:
    truth = read_truth(visit.data)
    for group, columns in (("all", truth), *((name, truth.filter(like=f"{name}::")) for name in ("culture", "tag"))):
        numbers = columns.sum(axis=1)
        assert visit.page.row("lengths", group) == [
            f"{numbers.mean():.2f}",
            f"{numbers.median():g}",
            f"{numbers.min():.0f}",
            f"{numbers.max():.0f}",
            f"{(numbers == 0).sum()}",
        ]


def test_the_heat_map_is_the_share_of_the_rows_images_that_have_the_columns_label(visit: Visit) -> None:
    truth = read_truth(visit.data)
    header, base, *rows = visit.page.tables["heat-map"]
    names = {name.partition("::")[2]: name for name in truth.columns}
    order = [names[name] for name in header[1:]]
    assert sorted(order) == sorted(truth.columns)
    assert list(truth[order].sum()) == sorted(truth.sum(), reverse=True)

    def show(share: float) -> str:
        return f"{100 * share:.0f}" if share >= 0.005 else ""

    assert base[1:] == [show(truth[name].mean()) for name in order]
    for (name, *cells), row in zip(rows, order, strict=True):
        assert names[name] == row
        with_row = truth[truth[row] == 1]
        assert cells == ["" if row == column else show(with_row[column].mean()) for column in order]


def test_sizes_are_those_of_the_files(visit: Visit) -> None:
    for place, part in enumerate(("train", "test")):
        sizes = (
            pd.DataFrame([read_pixels(path).shape for path in (visit.data / part).iterdir()])
            .iloc[:, [1, 0]]
            .set_axis(["w", "h"], axis=1)
        )
        assert visit.page.row("parts", "images")[place] == str(len(sizes))
        assert visit.page.row("parts", "median width, px")[place] == f"{sizes.w.median():g}"
        assert visit.page.row("parts", "median height, px")[place] == f"{sizes.h.median():g}"
        lengths = sizes.max(axis=1) / sizes.min(axis=1)
        shown = visit.page.row("ratios", part)
        assert shown[:2] == [f"{100 * (lengths >= bound).mean():.1f} %" for bound in (1.5, 2)]
        assert shown[-1] == f"{lengths.max():.1f} {TIMES}"


@pytest.mark.usefixtures("no_plots")
def test_the_most_elongated_images_are_sorted_and_have_size_and_labels(tmp_path: Path) -> None:
    sizes = {"broad": (90, 30), "square": (40, 40), "tall": (10, 80), "strip": (800, 20)}
    data = write_data(tmp_path / "data", ["culture::norse", "tag::boats"], {k: (v, "0 1") for k, v in sizes.items()})
    text = look(data, tmp_path / "explore.html").text
    figures = re.findall(
        r'<figure class="(\w+)">.*?<b>(.*?)</b> \((.*?)\) <code>(.*?)</code>(.*?)</figcaption>', text, re.S
    )
    assert [figure[:4] for figure in figures] == [
        ("wide", f"800 {TIMES} 20", "40.0 : 1", "strip"),
        ("wide", f"90 {TIMES} 30", "3.0 : 1", "broad"),
        ("wide", f"40 {TIMES} 40", "1.0 : 1", "square"),
        ("tall", f"10 {TIMES} 80", "8.0 : 1", "tall"),
    ]
    assert all(re.findall(r">(\w+)</span>", figure[4]) == ["norse", "boats"] for figure in figures)


@pytest.mark.usefixtures("no_plots")
def test_images_of_one_size_give_a_sentence(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", ["tag::boats"], dict.fromkeys("abc", ((30, 20), "0")))
    visit = look(data, tmp_path / "explore.html")
    assert f"All readable images are 30 {TIMES} 20 px." in visit.page.text
    assert "<figure" not in visit.text


def test_without_a_test_folder_the_page_says_so(strange_visit: Visit) -> None:
    page = strange_visit.page
    assert "No comparison with test: there is no folder test with test images" in page.text
    assert page.tables["parts"][0] == ["", "train"]
    assert len(page.row("channels", "red")) == 4


@pytest.mark.usefixtures("no_plots")
def test_missing_and_broken_images_are_counted_and_the_first_five_named(museum: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(museum, tmp_path / "data"))
    ids = pd.read_csv(data / "train.csv", dtype=str)["id"].tolist()
    for name in ids[:7]:
        (data / "train" / f"{name}.png").unlink()
    for name in ids[10:12]:
        (data / "train" / f"{name}.png").write_bytes(b"no picture")
    (data / "test").mkdir()
    (data / "test" / "x.png").write_bytes(b"")
    page = look(data, tmp_path / "explore.html").page
    assert page.row("parts", "images") == ["60", "1"]
    assert page.row("parts", "missing files") == ["7", "0"]
    assert page.row("parts", "opened") == ["53", "1"]
    assert page.row("parts", "unreadable, of those opened") == ["2", "1"]
    assert page.tables["missing-train"] == [[name] for name in ids[:5]]
    assert [item.partition(":")[0] for (item,) in page.tables["unreadable-train"]] == [f"{n}.png" for n in ids[10:12]]
    assert "none of the 1 opened test images can be read" in page.text


@pytest.mark.usefixtures("no_plots")
def test_a_subset_is_stated_and_the_label_tables_still_count_all_rows(visit: Visit, tmp_path: Path) -> None:
    part = look(visit.data, tmp_path / "part.html", images=12)
    assert "sample of 12 of 60 train images and 12 of 20 test images, drawn at random with the fixed seed 0" in (
        part.page.text
    )
    assert part.page.row("parts", "opened") == ["12", "12"]
    for table in ("rarity", "lengths", "heat-map", "most-tag", "least-culture"):
        assert part.page.tables[table] == visit.page.tables[table]
    assert part.page.tables["channels"] != visit.page.tables["channels"]
    assert "subset" not in [value for _, name, value in visit.page.attributes if name == "id"]


@pytest.mark.usefixtures("no_plots")
def test_images_that_are_missing_are_not_drawn(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", ["tag::boats"], {f"{n:02}": ((20, 20), "0") for n in range(20)})
    for number in range(15):
        (data / "train" / f"{number:02}.png").unlink()
    page = look(data, tmp_path / "explore.html", images=5).page
    assert page.row("parts", "opened") == ["5"]


def test_two_runs_are_byte_identical_and_leave_matplotlib_as_it_was(visit: Visit, tmp_path: Path) -> None:
    settings = dict(matplotlib.rcParams)
    again = look(visit.data, tmp_path / "again.html")
    assert again.text == visit.text
    assert dict(matplotlib.rcParams) == settings


def test_names_are_escaped(strange_visit: Visit) -> None:
    assert not re.search(r"<(script|a>|i>|u>)", strange_visit.text)
    for name in STRANGE_LABELS:
        assert html.escape(name.partition("::")[2]).replace("&quot;", "&#34;") in strange_visit.text
    assert "<u>data: data overview" in strange_visit.page.text


def test_labels_that_no_image_has_are_counted(strange_visit: Visit) -> None:
    assert strange_visit.page.row("rarity", "_e") == ["2", "2", "2", "0", "0", "0"]
    assert strange_visit.page.row("lengths", "_e") == ["0.00", "0", "0", "0", "5"]


def remove_train(data: Path) -> None:
    shutil.rmtree(data / "train")


def spoil_every_image(data: Path) -> None:
    for path in (data / "train").iterdir():
        path.write_bytes(b"")


@pytest.mark.parametrize(
    ("breakage", "images", "message"),
    [
        (lambda data: None, 0, "--images: found 0; wanted at least 1"),
        (lambda data: (data / "labels.csv").unlink(), None, "{data}/labels.csv: no such file"),
        (
            lambda data: (data / "train.csv").unlink(),
            None,
            "{data}/train.csv: no such file; wanted a table with the columns id and attribute_ids",
        ),
        (
            lambda data: (data / "train.csv").write_text("id,attribute_ids\na,9\n"),
            None,
            "{data}/train.csv: image a: found attribute_ids '9'; label 9 is not in labels.csv",
        ),
        (
            remove_train,
            None,
            "{data}/train: holds none of the 2 images of train.csv; wanted files such as a.png",
        ),
        (
            spoil_every_image,
            None,
            "{data}/train: found 2 images, none readable; the first: a.png: "
            f"found an empty file; wanted one of {', '.join(FORMATS)}",
        ),
    ],
)
def test_a_failure_is_one_line_and_leaves_the_old_page(
    tmp_path: Path, breakage: Callable[[Path], object], images: int | None, message: str
) -> None:
    data = write_data(tmp_path / "data", ["tag::boats"], {"a": ((9, 9), "0"), "b": ((12, 9), "0")})
    breakage(data)
    out = tmp_path / "pages" / "explore.html"
    out.parent.mkdir()
    out.write_text("an older page")
    with pytest.raises(VitrineError) as caught:
        explore(data, out, images)
    assert str(caught.value) == message.format(data=data)
    assert [path.name for path in out.parent.iterdir()] == ["explore.html"]
    assert out.read_text() == "an older page"


def test_an_unwritable_output_is_an_error_before_an_image_is_read(
    museum: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.pages.explore.measure_part", lambda *_: pytest.fail("read an image"))
    with pytest.raises(OutputError) as caught:
        explore(museum, tmp_path / "no" / "explore.html")
    assert str(caught.value) == (
        f"{tmp_path}/no/explore.html: cannot be written: there is no folder {tmp_path}/no; "
        "wanted a file such as explore.html"
    )
    with pytest.raises(OutputError, match="it is a folder; wanted a file"):
        explore(museum, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_no_file(museum: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"half a page")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.pages.explore.render_explore_page", lambda *_: "a page")
    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        explore(museum, tmp_path / "explore.html", images=1)
    assert list(tmp_path.iterdir()) == []
