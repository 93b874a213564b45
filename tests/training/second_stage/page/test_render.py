import base64
import dataclasses
import re
import runpy
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from inference.basics.errors import OutputError
from training.second_stage.calibration import Reliability
from training.second_stage.findings import Confused, Findings, FrequencySlice, Judged, ThresholdCurve
from training.second_stage.inputs.coverage import MemberInput
from training.second_stage.page.render import TEMPLATE, choose_axis, render_ensemble_page, write_ensemble_page

THRESHOLDS = tuple(float(threshold) for threshold in np.round(np.arange(0.005, 1, 0.005), 3))
HOSTILE = "<script>alert('x')</script>$^ & \"b\""


def make_curve(threshold: float, height: float) -> ThresholdCurve:
    """Return a curve with its peak at `threshold`."""
    f2 = height * np.exp(-((np.log(np.array(THRESHOLDS) / threshold) / 2.2) ** 2))
    return ThresholdCurve(THRESHOLDS, tuple(map(float, f2)), threshold)


def make_reliability(log_loss: float, excess: float, most: int) -> Reliability:
    """Return the reliability of probabilities that are too high by a factor, `excess`."""
    chances = np.array([0.0004, 0.002, 0.006, 0.018, 0.055, 0.14, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.96])
    counts = (most * np.geomspace(1, 0.001, 14)).astype(int)
    return Reliability(log_loss, chances, chances / excess, counts)


def make_findings() -> Findings:
    """Return invented findings of a zoo of five members; no two figures are equal."""
    members = ("seresnext101_288", "seresnext50_320", "resnet34_224", "pnasnet5_416", "cbam_resnet50_300")
    return Findings(
        images=4800,
        folds=3,
        metric="F2",
        higher_is_better=True,
        is_mean=True,
        members=tuple(
            MemberInput(name, images, images / 4800, groups, use)
            for name, images, groups, use in (
                *((name, 4800, ("culture", "tag"), "blend and stackers") for name in members[:4]),
                (members[4], 1536, ("tag",), "blend; not the stackers: fewer than 50% of the images"),
                ("imagenet_224", 4800, (), "features, read by the trees"),
            )
        ),
        method="mix",
        rule="expected F2",
        richest="thresholds and label counts",
        base="a threshold per group",
        expected="expected F2",
        methods=(
            Judged("best single model", 0.5673, -0.0247, -0.0291, -0.0203),
            Judged("mean", 0.5894, -0.0026, -0.0049, -0.0002),
            Judged("blend", 0.5920, 0.0, 0.0, 0.0),
            Judged("cnn_apart", 0.5987, 0.0067, 0.0031, 0.0102),
            Judged("cnn_all", 0.5931, 0.0011, -0.0028, 0.0050),
            Judged("cnn_both", 0.6012, 0.0092, 0.0061, 0.0124),
            Judged("trees", 0.6043, 0.0123, 0.0083, 0.0161),
            Judged("mix", 0.6088, 0.0168, 0.0132, 0.0205),
        ),
        rules=(
            Judged("one threshold", 0.6021, -0.0038, -0.0056, -0.0019),
            Judged("a threshold per group", 0.6059, 0.0, 0.0, 0.0),
            Judged("thresholds and label counts", 0.6086, 0.0027, 0.0012, 0.0043),
            Judged("expected F2", 0.6134, 0.0075, 0.0054, 0.0097),
        ),
        left_out={},
        weights={
            "culture": dict(zip(members, (0.412, 0.207, 0.051, 0.330), strict=False)),
            "tag": dict(zip(members, (0.309, 0.221, 0.013, 0.281, 0.176), strict=True)),
        },
        mix={
            "culture": {"blend": 0.114, "cnn_apart": 0.283, "trees": 0.603},
            "tag": {"blend": 0.087, "cnn_apart": 0.214, "cnn_all": 0.165, "trees": 0.534},
        },
        values=dict(zip(members, (0.0093, 0.0041, -0.0007, 0.0112, 0.0018), strict=True)),
        thresholds={"culture": make_curve(0.145, 0.483), "tag": make_curve(0.21, 0.632)},
        reliability={
            "culture": make_reliability(0.00612, 1.2, 1_872_004),
            "tag": make_reliability(0.01934, 0.96, 3_205_117),
        },
        slices=(
            FrequencySlice("fewer than 20", 501, {"blend": 0.0912, "mix": 0.1423}),
            FrequencySlice("20 to 99", 388, {"blend": 0.3104, "mix": 0.3597}),
            FrequencySlice("100 to 999", 190, {"blend": 0.5216, "mix": 0.5461}),
            FrequencySlice("1000 or more", 24, {"blend": 0.7105, "mix": 0.7218}),
        ),
        slice_metric="F2",
        confused=None,
        errors=None,
        parity={"cnn_culture": 2.4e-7, "cnn_tag": 3.1e-7, "cnn_all": 4.2e-7, "trees": 0.0},
    )


class PageReader(HTMLParser):
    """The text, the tags with their attributes, and the cells of each table of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._rows: list[list[str]] = []
        self._is_in_cell = False
        self.feed(text)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        if tag == "table":
            self._rows = self.tables.setdefault(attributes["id"], [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
            self._is_in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._is_in_cell = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._is_in_cell:
            self._rows[-1][-1] += data.strip()

    def body(self, table: str) -> list[list[str]]:
        return self.tables[table][1:]

    def values(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]


def read(findings: Findings) -> PageReader:
    return PageReader(render_ensemble_page(findings))


@pytest.fixture(scope="module")
def text() -> str:
    return render_ensemble_page(make_findings())


@pytest.fixture(scope="module")
def page(text: str) -> PageReader:
    return PageReader(text)


def test_the_first_sentences_have_the_f2_of_the_chosen_rule_and_the_gain_of_the_method(page: PageReader) -> None:
    assert (
        "Mean out-of-fold F2: 0.6134 (mix, decided by expected F2). With thresholds and label counts, the difference "
        "to the weighted average is +0.0168 (95 % interval +0.0132 to +0.0205). 4,800 images in 3 outer folds:"
    ) in page.text


def test_every_method_has_its_f2_gain_and_interval(page: PageReader) -> None:
    assert [row[:4] for row in page.body("method-table")] == [
        ["best single model", "0.5673", "-0.0247", "-0.0291 to -0.0203"],
        ["mean", "0.5894", "-0.0026", "-0.0049 to -0.0002"],
        ["weighted average", "0.5920", "", ""],
        ["CNN ①", "0.5987", "+0.0067", "+0.0031 to +0.0102"],
        ["CNN ②", "0.5931", "+0.0011", "-0.0028 to +0.0050"],
        ["CNN ① + ②", "0.6012", "+0.0092", "+0.0061 to +0.0124"],
        ["trees", "0.6043", "+0.0123", "+0.0083 to +0.0161"],
        ["mix", "0.6088", "+0.0168", "+0.0132 to +0.0205"],
    ]


def test_every_rule_has_its_f2_gain_and_interval(page: PageReader) -> None:
    assert [row[:4] for row in page.body("rule-table")] == [
        ["one threshold", "0.6021", "-0.0038", "-0.0056 to -0.0019"],
        ["a threshold per group", "0.6059", "", ""],
        ["thresholds and label counts", "0.6086", "+0.0027", "+0.0012 to +0.0043"],
        ["expected F2", "0.6134", "+0.0075", "+0.0054 to +0.0097"],
    ]


def test_the_chosen_method_and_rule_are_marked_and_no_other(text: str) -> None:
    assert re.findall(r'<tr class="chosen"><th>(.*?)</th>', text) == ["mix", "expected F2"]


def test_intervals_are_drawn_at_their_values(text: str) -> None:
    """Positions and lengths are linear in the figures: two intervals give the scale of all others."""
    table = text.partition('<table id="method-table">')[2].partition("</table>")[0]
    marks = re.findall(
        r'<div class="(\w+)"><i class="zero" style="left: ([\d.]+)%"></i><i class="range" style="left: ([\d.]+)%; '
        r'width: ([\d.]+)%"></i><i class="dot" style="left: ([\d.]+)%">',
        table,
    )
    judged = [one for one in make_findings().methods if one.name != "blend"]
    assert [look for look, *_ in marks] == ["below", "below", "above", "unsure", "above", "above", "above"]
    places = np.array([[float(value) for value in row] for _, *row in marks])  # (methods, zero, left, width, dot)
    assert (places >= 0).all() and (places[:, 1] + places[:, 2] <= 100).all()
    scale = (places[-1, 3] - places[0, 3]) / (judged[-1].gain - judged[0].gain)
    assert places[:, 1] - places[:, 0] == pytest.approx([scale * one.low for one in judged], abs=0.03)
    assert places[:, 2] == pytest.approx([scale * (one.high - one.low) for one in judged], abs=0.03)
    assert places[:, 3] - places[:, 0] == pytest.approx([scale * one.gain for one in judged], abs=0.03)


def test_thresholds_have_the_f2_of_their_curve_and_the_curves_best(page: PageReader) -> None:
    assert page.body("threshold-table") == [
        ["culture", "0.145", "0.4830", "0.145", "0.4830"],
        ["tag", "0.210", "0.6320", "0.210", "0.6320"],
    ]
    curve = ThresholdCurve((0.1, 0.2, 0.3), (0.41, 0.52, 0.47), 0.3)
    assert read(dataclasses.replace(make_findings(), thresholds={"tag": curve})).body("threshold-table") == [
        ["tag", "0.300", "0.4700", "0.200", "0.5200"]
    ]


def test_calibration_has_log_loss_and_the_pairs_of_each_bin(page: PageReader) -> None:
    assert "Log loss, nats per pair: culture 0.00612 tag 0.01934" in page.text
    rows = [page.body(f"reliability-{place}") for place in (1, 2)]
    assert [len(part) for part in rows] == [14, 14]
    assert [part[0] for part in rows] == [["0.00040", "0.00033", "1,872,004"], ["0.00040", "0.00042", "3,205,117"]]
    assert [part[-1] for part in rows] == [["0.96000", "0.80000", "1,872"], ["0.96000", "1.00000", "3,205"]]


def test_slices_have_the_f2_of_each_method(page: PageReader) -> None:
    assert page.tables["slice-table"] == [
        ["images per label", "labels", "weighted average", "mix"],
        ["fewer than 20", "501", "0.0912", "0.1423"],
        ["20 to 99", "388", "0.3104", "0.3597"],
        ["100 to 999", "190", "0.5216", "0.5461"],
        ["1000 or more", "24", "0.7105", "0.7218"],
    ]


def test_weights_are_in_the_column_of_their_group(page: PageReader) -> None:
    assert page.body("weight-table") == [
        ["seresnext101_288", "0.412", "", "0.309", ""],
        ["seresnext50_320", "0.207", "", "0.221", ""],
        ["resnet34_224", "0.051", "", "0.013", ""],
        ["pnasnet5_416", "0.330", "", "0.281", ""],
        ["cbam_resnet50_300", "", "", "0.176", ""],
    ]
    assert page.body("mix-table") == [
        ["weighted average", "0.114", "", "0.087", ""],
        ["CNN ①", "0.283", "", "0.214", ""],
        ["trees", "0.603", "", "0.534", ""],
        ["CNN ②", "", "", "0.165", ""],
    ]


def test_every_member_has_its_images_and_its_use(page: PageReader) -> None:
    few = "blend; not the stackers: fewer than 50% of the images"
    assert page.tables["member-table"] == [
        ["member", "images", "share", "groups", "used for"],
        ["seresnext101_288", "4,800", "100.0%", "culture, tag", "blend and stackers"],
        ["seresnext50_320", "4,800", "100.0%", "culture, tag", "blend and stackers"],
        ["resnet34_224", "4,800", "100.0%", "culture, tag", "blend and stackers"],
        ["pnasnet5_416", "4,800", "100.0%", "culture, tag", "blend and stackers"],
        ["cbam_resnet50_300", "1,536", "32.0%", "tag", few],
        ["imagenet_224", "4,800", "100.0%", "-", "features, read by the trees"],
    ]
    assert "Some members held out only a part of the images" in page.text
    assert "only the trees read them" in page.text and "the trees cannot run" in page.text


def test_members_that_held_out_all_images_are_not_explained() -> None:
    found = make_findings()
    whole = read(dataclasses.replace(found, members=found.members[:4]))
    assert "Every member held out every image." in whole.text
    assert "only a part" not in whole.text and "features" not in whole.text
    assert "other members held out too" not in whole.text


def test_members_are_sorted_by_the_f2_lost_without_them(page: PageReader) -> None:
    assert [row[:2] for row in page.body("value-table")] == [
        ["pnasnet5_416", "+0.0112"],
        ["seresnext101_288", "+0.0093"],
        ["seresnext50_320", "+0.0041"],
        ["cbam_resnet50_300", "+0.0018"],
        ["resnet34_224", "-0.0007"],
    ]


def test_lengths_of_bars_are_proportional_to_their_values(text: str) -> None:
    def measure_bars(table: str) -> list[float]:
        part = text.partition(f'id="{table}">')[2].partition("</table>")[0]
        return [float(width) for width in re.findall(r"<i [^>]*width: ([\d.]+)%", part)]

    weights = [0.412, 0.309, 0.207, 0.221, 0.051, 0.013, 0.330, 0.281, 0.176]
    assert measure_bars("weight-table") == pytest.approx([100 * weight / 0.412 for weight in weights], abs=0.01)
    longest, *others = measure_bars("value-table")
    assert others == pytest.approx([longest * value / 0.0112 for value in (0.0093, 0.0041, 0.0018, 0.0007)], abs=0.02)
    assert 80 < longest < 100


def test_parity_is_shown_for_each_stacker(page: PageReader) -> None:
    assert page.body("parity-table") == [
        ["cnn_culture", "2.4e-07"],
        ["cnn_tag", "3.1e-07"],
        ["cnn_all", "4.2e-07"],
        ["trees", "0"],
    ]


def test_the_page_has_no_external_resources(text: str, page: PageReader) -> None:
    assert "http" not in text
    assert not re.search(r"url\(|@import|javascript:", text)
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    plots = page.values("src")
    assert len(plots) == 3
    for plot in plots:
        kind, _, encoded = plot.partition(",")
        assert kind == "data:image/svg+xml;base64"
        drawn = base64.b64decode(encoded).decode()
        assert "<svg" in drawn
        assert all(link[0] == "#" or link.startswith("data:") for link in re.findall(r'href="([^"]*)"', drawn))


def test_every_link_has_a_target_and_ids_are_unique(page: PageReader) -> None:
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in page.values("href")} <= set(ids)


def test_the_plots_change_with_their_figures(page: PageReader) -> None:
    found = make_findings()
    changed = dataclasses.replace(
        found,
        thresholds={**found.thresholds, "tag": dataclasses.replace(found.thresholds["tag"], chosen=0.3)},
        slices=(dataclasses.replace(found.slices[0], scores={"blend": 0.2, "mix": 0.1423}), *found.slices[1:]),
    )
    thresholds, reliability, slices = zip(page.values("src"), read(changed).values("src"), strict=True)
    assert thresholds[0] != thresholds[1]
    assert reliability[0] == reliability[1]
    assert slices[0] != slices[1]


def test_names_are_escaped(page: PageReader) -> None:
    found = make_findings()
    hostile = dataclasses.replace(
        found,
        weights={HOSTILE: {HOSTILE: 1.0}},
        mix={HOSTILE: {HOSTILE: 1.0}},
        values={HOSTILE: 0.01},
        thresholds={HOSTILE: found.thresholds["tag"]},
        reliability={HOSTILE: found.reliability["tag"]},
        left_out={HOSTILE: HOSTILE},
        confused=(Confused(HOSTILE, HOSTILE, 1, 0.5),),
        errors={HOSTILE: 1.0},
        parity={HOSTILE: 1e-7},
        slices=(FrequencySlice("20 to 99", 1, {HOSTILE: 0.5}),),
        methods=(*found.methods, Judged(HOSTILE, 0.6, 0.1, 0.05, 0.15)),
    )
    text = render_ensemble_page(hostile)
    assert "<script" not in text
    shown = PageReader(text)
    assert {tag for tag, _ in shown.tags} == {tag for tag, _ in page.tags}
    assert f"Left out: {HOSTILE} ({HOSTILE})." in shown.text
    for table in (
        "weight-table",
        "mix-table",
        "value-table",
        "parity-table",
        "threshold-table",
        "method-table",
        "confused-table",
    ):
        assert HOSTILE in [row[0] for row in shown.body(table)]


def test_without_stackers_the_weighted_average_is_used_alone() -> None:
    found = make_findings()
    base = Judged("blend", 0.5920, 0.0, 0.0, 0.0)
    page = read(
        dataclasses.replace(
            found,
            method="blend",
            rule="a threshold per group",
            methods=(*found.methods[:2], base),
            mix={},
            parity={},
            slices=tuple(dataclasses.replace(one, scores={"blend": one.scores["blend"]}) for one in found.slices),
        )
    )
    assert "F2: 0.6059 (weighted average, decided by a threshold per group). 4,800 images" in page.text
    assert "There is no mix: the weighted average is used alone." in page.text
    assert "No stacker was exported." in page.text
    assert "CNN" not in page.text
    assert "mix-table" not in page.tables and "parity-table" not in page.tables
    assert page.tables["slice-table"][0] == ["images per label", "labels", "weighted average"]


def test_one_group_of_one_member_without_values() -> None:
    found = make_findings()
    base = Judged("blend", 0.5673, 0.0, 0.0, 0.0)
    page = read(
        dataclasses.replace(
            found,
            method="blend",
            methods=(dataclasses.replace(base, name="best single model"), dataclasses.replace(base, name="mean"), base),
            weights={"label": {"resnet34_224": 1.0}},
            mix={},
            values={},
            thresholds={"label": found.thresholds["tag"]},
            reliability={"label": found.reliability["tag"]},
            slices=found.slices[:1],
            parity={},
        )
    )
    assert page.body("weight-table") == [["resnet34_224", "1.000", ""]]
    first = page.body("method-table")[0]
    assert first[:4] == ["best single model", "0.5673", "+0.0000", "+0.0000 to +0.0000"]
    assert "No member values were measured." in page.text
    assert "value-table" not in page.tables
    assert len(page.values("src")) == 3


def test_without_curves_and_slices_the_page_says_so() -> None:
    page = read(dataclasses.replace(make_findings(), thresholds={}, reliability={}, slices=()))
    for line in ("No curves were drawn.", "No calibration was measured.", "No image has a label."):
        assert line in page.text
    assert page.values("src") == []


def test_sections_that_do_not_suit_the_task_are_left_out() -> None:
    found = make_findings()
    rules = (Judged("scores", 0.412, 0.0, 0.0, 0.0), Judged("temperature and clip", 0.398, 0.014, 0.002, 0.026))
    page = read(
        dataclasses.replace(
            found,
            metric="log loss",
            higher_is_better=False,
            rule="temperature and clip",
            richest="temperature and clip",
            base="scores",
            expected=None,
            rules=rules,
            left_out={"trees": "there is one label"},
            thresholds=None,
            slices=None,
            confused=(Confused("Sugar beet", "Black grass", 12, 0.25),),
        )
    )
    assert "Mean out-of-fold log loss: 0.3980 (mix, decided by temperature and clip)." in page.text
    assert "A lower log loss is better, and a difference above 0 is an improvement." in page.text
    assert "Left out: trees (there is one label)." in page.text
    assert page.tables["value-table"][0][1] == "log loss added"
    assert page.body("confused-table") == [["Sugar beet", "Black grass", "12", "25.0%"]]
    assert (
        "threshold-table" not in page.tables and "slice-table" not in page.tables and "error-table" not in page.tables
    )
    assert "F2" not in page.text
    assert {link[1:] for link in page.values("href")} == {
        *("methods", "rules", "calibration", "confused", "members", "weights", "values", "parity")
    }


def test_numbers_have_a_table_of_errors() -> None:
    found = dataclasses.replace(
        make_findings(), metric="RMSE", is_mean=False, higher_is_better=False, thresholds=None, reliability=None
    )
    page = read(dataclasses.replace(found, slices=None, errors={"mean error": -0.25, "mean absolute error": 12.5}))
    assert page.body("error-table") == [["mean error", "-0.25"], ["mean absolute error", "12.5"]]
    assert "Out-of-fold RMSE: 0.6134" in page.text
    assert page.values("src") == []


@pytest.mark.parametrize(
    ("values", "inside"), [([], [0.0]), ([0.0], [0.0]), ([0.2, 0.1], [0.0, 0.2]), ([-3.0], [-3.0, 0.0])]
)
def test_an_axis_contains_its_values_and_zero(values: list[float], inside: list[float]) -> None:
    axis = choose_axis(values)
    assert all(0 < float(axis.place(value)[:-1]) < 100 for value in inside)


def test_the_same_findings_give_the_same_bytes_in_the_file(text: str, tmp_path: Path) -> None:
    write_ensemble_page(make_findings(), tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == text.encode()


def test_a_failed_write_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"half a page")
        raise OSError(28, "No space left on device")

    path = tmp_path / "page.html"
    path.write_bytes(b"an older page")
    monkeypatch.setattr("training.second_stage.page.render.render_ensemble_page", lambda *_: "a page")
    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OutputError) as caught:
        write_ensemble_page(make_findings(), path)
    assert str(caught.value) == f"{path}: cannot be written: No space left on device"
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]
    assert path.read_bytes() == b"an older page"


def test_matplotlib_is_imported_only_when_a_page_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # its import now fails
    for name in ("zoo.plots", "training.pages.explore_plots", "training.second_stage.page.curves"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.delattr(name, raising=False)
    module = runpy.run_path(str(TEMPLATE.with_name("render.py")))
    with pytest.raises(ModuleNotFoundError, match="matplotlib"):
        module["render_ensemble_page"](make_findings())
