"""build_kernel.py plan: estimates against hand calculations, the choice of passes, logs, and errors."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import build_kernel
from inference.basics.errors import PackError
from inference.images.geometry import Geometry
from inference.manifest.file import read_manifest, write_manifest
from inference.manifest.model import Resize
from inference.manifest.records import Ensemble, Manifest, Runtime
from inference.models.sessions import CPU, CUDA
from packing.accelerators import ACCELERATORS, Rates, find_accelerator, find_rates
from packing.plan.chart import draw_plan
from packing.plan.estimate import estimate_decoding, estimate_seconds
from packing.plan.measured import read_measured
from packing.plan.run_plan import RunPlan, describe_plan, make_plan
from packing.plan.work import Work, count_work
from tests.conftest import Workshop
from zoo.networks import Design

LOG: dict[str, Any] = {
    "vitrine": "0.1.0",
    "providers": [CPU],
    "images": 100,
    "images_per_second": 10.0,
    "passes_per_second": {"everything": 50.0, "culture": 100.0, "tag": 200.0},
    "seconds": {"check": 1.0, "sessions": 7.0, "predict": 10.0, "decide": 1.0, "total": 12.0},
}
VALUES = {
    "everything": {"identity": 0.02, "hflip": 0.001},
    "culture": {"identity": 0.01, "hflip": 0.002},
    "tag": {"identity": 0.03, "hflip": 0.004},
}
CPU_ROW = find_accelerator("CPU")
HINT = "wanted a run_log.json, which a run writes beside its submission"
NAMES = "everything, culture, tag"


@pytest.fixture
def zoo(workshop: Workshop, tmp_path: Path) -> Path:
    """A manifest of three models with known values and no notebook reserve, and its labels."""
    (tmp_path / "labels.csv").write_bytes((workshop.home / "labels.csv").read_bytes())
    manifest = read_manifest(workshop.manifest)
    valued = replace(manifest.ensemble, values=VALUES)
    write_manifest(replace(manifest, ensemble=valued, runtime=Runtime(notebook_reserve=0)), tmp_path / "zoo.json")
    return tmp_path / "zoo.json"


def write_log(folder: Path, **changes: Any) -> Path:
    path = folder / "run_log.json"
    path.write_text(json.dumps(LOG | changes))
    return path


def plan_logged(zoo: Path, images: int, time_limit: float) -> RunPlan:
    return make_plan(zoo, CPU_ROW, images, time_limit, log=write_log(zoo.parent))


def test_seconds_add_up_multiply_adds_and_bytes() -> None:
    work = Work(multiply_adds=3 * 10**9, moved=200 * 10**6, weights=64 * 10**6, widest=0)
    rates = Rates(tflops=2, bandwidth=100, efficiency=0.5, source="")
    # 6 GFLOP at 2 TFLOP/s take 3 ms; 200 MB and 1/32 of 64 MB at 100 GB/s take 2.02 ms; efficiency 0.5 doubles both.
    assert estimate_seconds(work, rates, "fp32", batch=32) == pytest.approx(10.04e-3)
    assert estimate_seconds(work, rates, "fp16", batch=32) == pytest.approx(8.02e-3)


@pytest.mark.parametrize(("precision", "slowest", "fastest"), [("fp32", 164, 164), ("fp16", 482, 527)])
def test_the_estimate_for_a_t4_matches_the_published_rate(precision: str, slowest: float, fastest: float) -> None:
    work = count_work(Design("legacy_seresnext101_32x4d", (224, 224), 1000))
    rate = 1 / estimate_seconds(work, find_accelerator("T4x2").rates[precision], precision)
    assert 0.99 * slowest <= rate <= 1.01 * fastest


def test_decoding_reads_once_and_resizes_once_per_geometry() -> None:
    small, large = Geometry((224, 224), Resize(), "bilinear"), Geometry((416, 416), Resize(), "bicubic")
    assert estimate_decoding([small], cores=1) == pytest.approx(5.5e-3)
    assert estimate_decoding([small, small, large], cores=2) == pytest.approx((4.3 + 1.2 + 3.9) / 2 * 1e-3)
    between = estimate_decoding([Geometry((272, 272), Resize(), "bilinear")], cores=1)
    assert 5.5e-3 < between < 5.8e-3


def test_every_accelerator_has_rates_for_its_precision_and_their_source() -> None:
    for accelerator in ACCELERATORS:
        _, rates = find_rates(accelerator)
        assert rates.tflops > 0 and rates.bandwidth > 0 and 0 < rates.efficiency <= 1 and rates.source
    with pytest.raises(PackError, match=r"^--precision: found 'fp16'; wanted one of: fp32 \(on CPU\)$"):
        find_rates(CPU_ROW, "fp16")


def test_two_devices_share_the_work(zoo: Path) -> None:
    t4 = find_accelerator("T4x2")
    both, one = (make_plan(zoo, accelerator, 1000) for accelerator in (t4, replace(t4, devices=1)))
    for name, seconds in one.seconds.items():
        assert both.seconds[name] == pytest.approx(seconds / 2)


def test_decoding_counts_on_a_gpu_only_if_it_is_slower_than_the_gpu(zoo: Path) -> None:
    plan = make_plan(zoo, find_accelerator("T4x2"), 1000)
    assert plan.add_up(plan.passes) == pytest.approx(plan.start + 1000 * plan.decoding)
    slow = replace(plan, decoding=0.0)
    assert slow.add_up(plan.passes) == pytest.approx(plan.start + 1000 * 2 * sum(plan.seconds.values()))


def test_measured_seconds_replace_estimates(zoo: Path) -> None:
    plan = plan_logged(zoo, 1000, 3600)
    assert plan.seconds == pytest.approx({"everything": 0.02, "culture": 0.01, "tag": 0.005})
    # Two views per model; 3 of 10 s are outside the sessions, for 100 images; 2 of 12 s are outside the images.
    assert plan.add_up(plan.passes) == pytest.approx(1000 * (2 * 0.035 + 0.03) + 2)
    assert plan.dropped == () and "fits the time limit of 1:00:00, with 58:18 to spare" in describe_plan(plan)


def test_a_model_missing_in_the_log_keeps_its_estimate_and_has_no_mark(zoo: Path) -> None:
    log = write_log(zoo.parent, passes_per_second={"everything": 50.0})
    plan, estimated = make_plan(zoo, CPU_ROW, 1000, log=log), make_plan(zoo, CPU_ROW, 1000)
    assert plan.seconds == {**estimated.seconds, "everything": 0.02}
    rows = {line.split()[0]: line for line in describe_plan(plan).splitlines() if line}
    assert "50.0*" in rows["everything"] and "*" not in rows["tag"]


def test_parallel_sessions_are_not_added_up(tmp_path: Path) -> None:
    log = write_log(tmp_path, providers=[CUDA, CPU], seconds={"sessions": 20.0, "predict": 10.0, "total": 10.0})
    measured = read_measured(log, CUDA)
    assert measured.seconds["everything"] == pytest.approx(0.01)
    assert (measured.overhead, measured.start) == (0.0, 0.0)


@pytest.mark.parametrize("time_limit", [51, 55, 70, 85, 100])
def test_the_kept_passes_have_the_highest_value_that_fits(zoo: Path, time_limit: float) -> None:
    """Compare with every choice of models and views that covers both groups."""
    plan = plan_logged(zoo, 1000, time_limit)
    assert plan.fits(plan.kept) and plan.dropped
    best = 0.0
    for flags in itertools.product((False, True), repeat=len(plan.passes)):
        chosen = tuple(one for one, flag in zip(plan.passes, flags, strict=True) if flag)
        groups = {group for one in chosen for group in one.groups}
        first = {one.model for one in chosen if not one.spare}
        whole = groups == {"culture", "tag"} and all(one.model in first for one in chosen)
        # The kernel keeps a margin of 5 % of the time limit, and rounds times up to 1/500.
        if whole and plan.add_up(chosen) <= 0.94 * time_limit:
            best = max(best, sum(one.value for one in chosen))
    assert sum(one.value for one in plan.kept) >= best > 0


def test_dropped_passes_are_listed_with_saved_time_and_lost_value(zoo: Path) -> None:
    lines = describe_plan(plan_logged(zoo, 1000, 85)).splitlines()
    start = lines.index("DOES NOT FIT the time limit of 1:25, by 0:17")
    assert lines[start + 1 :] == [
        "drop, in this order:",
        "  everything/hflip  saves 0:20, costs 0.0010",
        "  culture/hflip  saves 0:10, costs 0.0020",
        "the run then takes 1:12 and loses about 0.0030 of the out-of-fold F2, the sum of their values",
    ]


def test_views_are_dropped_first_and_then_the_lowest_value_per_second(zoo: Path) -> None:
    dropped = plan_logged(zoo, 1000, 46).dropped
    names = [str(one) for one in dropped]
    seconds = {"everything": 0.02, "culture": 0.01, "tag": 0.005}
    assert names == sorted(
        names,
        key=lambda name: (
            name.endswith("identity"),
            VALUES[name.partition("/")[0]][name.partition("/")[2]] / seconds[name.partition("/")[0]],
        ),
    )
    assert len(names) >= 4


def test_if_nothing_fits_the_number_of_predicted_images_is_printed(zoo: Path) -> None:
    plan = plan_logged(zoo, 1000, 20)
    # The fastest models that cover both groups, culture and tag, take 0.015 s, and decoding 0.03 s: 18 s of 45.
    assert describe_plan(plan).endswith("takes 0:47: about 400 images are predicted; the others get the prior labels")


def test_the_notebook_reserve_is_not_available_to_the_models(zoo: Path) -> None:
    """All passes take 102 s; the kernel keeps a margin of 5 % of the rest."""
    write_manifest(replace(read_manifest(zoo), runtime=Runtime(notebook_reserve=10)), zoo)
    whole, less = plan_logged(zoo, 1000, 120), plan_logged(zoo, 1000, 110)
    assert whole.dropped == () and less.dropped != ()
    limit = "the time limit of 2:00 less the notebook reserve of 0:10"
    assert describe_plan(whole).endswith(f"fits {limit}, with 0:08 to spare")
    short = "DOES NOT FIT the time limit of 1:50 less the notebook reserve of 0:10, by 0:02"
    assert short in describe_plan(less)


def test_without_values_no_loss_is_printed(workshop: Workshop, tmp_path: Path) -> None:
    plan = make_plan(workshop.manifest, CPU_ROW, 1000, 70, log=write_log(tmp_path))
    text = describe_plan(plan)
    assert plan.dropped and "F2" not in text and "costs" not in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"passes_per_second": 3}, f"`passes_per_second`: found 3; wanted an object; {HINT}"),
        ({"passes_per_second": {"tag": 0}}, f"`passes_per_second.tag`: found 0; wanted a number above 0; {HINT}"),
        ({"images_per_second": "fast"}, f'`images_per_second`: found "fast"; wanted a number; {HINT}'),
        ({"seconds": {"predict": 1}}, f"`seconds.sessions`: missing; wanted a number of at least 0; {HINT}"),
        ({"seconds": None}, f"`seconds`: found null; wanted an object; {HINT}"),
        ({"providers": [CUDA]}, f"`providers`: found {CUDA}; wanted {CPU}; choose the --accelerator of that run"),
        ({"passes_per_second": {"a": 1}}, f"`passes_per_second`: found a; wanted models of the manifest: {NAMES}"),
    ],
)  # fmt: skip
def test_an_invalid_log_is_refused_with_its_key(zoo: Path, changes: dict[str, Any], message: str) -> None:
    log = write_log(zoo.parent, **changes)
    with pytest.raises(PackError) as caught:
        make_plan(zoo, CPU_ROW, 1000, log=log)
    assert str(caught.value) == f"{log}: {message}"


def test_a_log_that_is_not_json_or_missing_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "run_log.json"
    with pytest.raises(PackError, match=r"run_log.json: cannot be read: No such file or directory$"):
        read_measured(log, CPU)
    for content, reason in ((b"[]", r"found \[\]; wanted an object"), (b"{", "not JSON: "), (b"\xff", "can't decode")):
        log.write_bytes(content)
        with pytest.raises(PackError, match=f"{reason}.*; wanted a run_log.json, which a run writes"):
            read_measured(log, CPU)


def test_a_manifest_without_models_and_zero_images_are_refused(zoo: Path) -> None:
    manifest = read_manifest(zoo)
    empty = Ensemble(weights={group: {} for group in manifest.labels.groups})
    bare: Manifest = replace(manifest, models=(), ensemble=empty)
    write_manifest(bare, zoo)
    with pytest.raises(PackError) as caught:
        make_plan(zoo, CPU_ROW, 1000)
    assert str(caught.value) == f"{zoo}: `models`: found none; wanted at least one; add one with `build_kernel.py add`"
    with pytest.raises(PackError, match=r"^--images: found 0; wanted at least 1$"):
        make_plan(zoo, CPU_ROW, 0)


@pytest.mark.parametrize("time_limit", [70, 3600])
def test_the_chart_is_a_png_and_no_other_file_is_written(zoo: Path, tmp_path: Path, time_limit: float) -> None:
    path = tmp_path / "charts" / "plan.png"
    draw_plan(plan_logged(zoo, 1000, time_limit), path)
    with Image.open(path) as image:
        assert image.format == "PNG" and min(image.size) > 300
    assert list(path.parent.iterdir()) == [path]


def test_the_command_prints_the_plan(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = zoo.parent / "plan.png"
    given = ["plan", "--manifest", str(zoo), "--accelerator", "p100", "--images", "500", "--time-limit", "9h"]
    assert build_kernel.main([*given, "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("note: Kaggle has retired the P100")
    assert lines[1] == "500 images on P100 in fp32; rates assumed equal to the T4's, not measured"
    assert lines[-2].startswith("fits the time limit of 9:00:00, with 8:59:") and lines[-1] == str(out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--accelerator", "V100"), "--accelerator: found 'V100'; wanted one of: T4x2, P100, L4, CPU"),
        (("--precision", "int8"), "--precision: found 'int8'; wanted one of: fp32, fp16 (on T4x2)"),
    ],
)
def test_the_command_refuses_in_one_line(
    zoo: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = zoo.parent / "plan.png"
    assert build_kernel.main(["plan", "--manifest", str(zoo), "--out", str(out), *arguments]) == 1
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not out.exists()


def test_an_invalid_time_limit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_kernel.main(["plan", "--time-limit", "9 hours"])
    assert "argument --time-limit: found '9 hours'; wanted a time such as 9h, 90m or 32400" in capsys.readouterr().err


def test_help_shows_an_example_that_runs(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_kernel.main(["plan", "--help"])
    example = capsys.readouterr().out.partition("example:\n  python build_kernel.py ")[2].split()
    assert example[0] == "plan"
    assert build_kernel.main([*example, "--manifest", str(zoo), "--out", str(zoo.parent / "plan.png")]) == 0
