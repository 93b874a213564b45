"""The fuzz targets with a fixed set of examples."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnx.onnx_ml_pb2 import ModelProto

from inference.models.graphs import find_external
from inference.task.ids import read_ids
from tests.conftest import Workshop, write_rows
from tests.fuzz.mutations import mutate, mutate_json
from tests.fuzz.targets import TARGETS, fuzz_graph, fuzz_image, fuzz_manifest, fuzz_table, make_seeds
from tests.roads.test_kernel import run_script

FUZZER = Path(__file__).with_name("run.py")


def bound(examples: int) -> settings:
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_of_each_target_pass(name: str) -> None:
    for seed in make_seeds(name):
        TARGETS[name](seed)


@bound(300)
@given(mutate(make_seeds("image")))
@pytest.mark.filterwarnings("ignore")  # Pillow warns about what it repairs
def test_a_broken_image_is_read_or_gives_an_image_error(content: bytes) -> None:
    fuzz_image(content)


@bound(200)
@given(mutate(make_seeds("manifest")))
def test_a_broken_manifest_is_read_or_gives_a_manifest_error(content: bytes) -> None:
    fuzz_manifest(content)


@bound(200)
@given(mutate_json(json.loads(make_seeds("manifest")[0])))
def test_json_close_to_a_manifest_is_read_or_gives_a_manifest_error(document: Any) -> None:
    fuzz_manifest(json.dumps(document).encode())


@bound(300)
@given(mutate(make_seeds("table")) | st.binary(max_size=200))
def test_a_broken_table_is_read_or_gives_a_table_error(content: bytes) -> None:
    fuzz_table(content)


@bound(300)
@given(mutate(make_seeds("graph")))
def test_a_broken_graph_is_refused_if_protobuf_finds_an_external_tensor(content: bytes) -> None:
    fuzz_graph(content)
    try:
        parsed = ModelProto.FromString(content)
    except Exception:  # protobuf's own errors; ONNX Runtime does not load what protobuf cannot read
        return
    if any(_is_external(tensor) for tensor in _list_tensors(parsed)):
        with suppress(ValueError):  # no session loads a file that the walk refuses
            assert find_external(memoryview(content)) is not None


def _is_external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL or len(tensor.external_data))


def _list_tensors(message: Any) -> list[TensorProto]:
    """List every TensorProto at any depth, by protobuf's own reflection."""
    if isinstance(message, TensorProto):
        return [message]
    inner = []
    for field, value in message.ListFields():
        if field.message_type:
            inner += [value] if hasattr(value, "ListFields") else list(value)
    return [tensor for part in inner for tensor in _list_tensors(part)]


def test_three_hundred_broken_images_through_the_script(workshop: Workshop, tmp_path: Path) -> None:
    """Every image gets a row, and a broken image costs no other image its scores."""
    images = tmp_path / "images"
    images.mkdir()

    @bound(300)
    @given(mutate(make_seeds("image")))
    def write(content: bytes) -> None:
        (images / f"{len(list(images.iterdir())):03}.png").write_bytes(content)

    write()
    ids = sorted(path.stem for path in images.iterdir())
    assert len(ids) >= 300
    sample = write_rows(tmp_path / "sample.csv", ("id", "attribute_ids"), [(name, "0") for name in ids])
    finished = run_script(workshop, tmp_path / "out" / "submission.csv", images=images, sample=sample)
    assert finished.returncode == 3 and "Traceback" not in finished.stderr, finished.stderr
    assert read_ids(tmp_path / "out" / "submission.csv") == ids
    unreadable = json.loads((tmp_path / "out" / "run_log.json").read_text())["unreadable"]
    assert 10 <= len(unreadable) <= len(ids) - 10, "the images must include both kinds"


def run_fuzzer(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FUZZER), *map(str, arguments)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_without_atheris_the_error_names_the_package_to_install(tmp_path: Path) -> None:
    (tmp_path / "atheris.py").write_text("raise ImportError")
    finished = run_fuzzer("image", tmp_path / "corpus", PYTHONPATH=str(tmp_path))
    assert (finished.returncode, finished.stderr) == (1, "error: atheris is not installed: pip install atheris\n")


@pytest.mark.parametrize("name", TARGETS)
def test_the_fuzzer_passes_target_and_corpus_to_atheris(name: str, tmp_path: Path) -> None:
    """With a stand-in for atheris that runs the corpus once."""
    (tmp_path / "atheris.py").write_text(
        "import contextlib, pathlib\n"
        "instrument_imports = lambda include: contextlib.nullcontext()\n"
        "def Setup(arguments, target):\n"
        "    global run; run = arguments, target\n"
        "def Fuzz():\n"
        "    (_, corpus, *options), target = run\n"
        "    files = sorted(pathlib.Path(corpus).iterdir())\n"
        "    for file in files: target(file.read_bytes())\n"
        "    print(target.__name__, len(files), *options)\n"
    )
    finished = run_fuzzer(name, tmp_path / "corpus", "-runs=1", PYTHONPATH=str(tmp_path))
    assert finished.stdout == f"fuzz_{name} {len(make_seeds(name))} -runs=1\n", finished.stderr
