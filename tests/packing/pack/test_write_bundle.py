import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import onnx
import pytest

from inference.basics.errors import OutputError, PackError, SessionError, VitrineError
from inference.basics.files import hash_file
from inference.manifest.file import MANIFEST_NAME, read_manifest
from packing.accelerators import ACCELERATORS, find_accelerator
from packing.check.check import check_bundle
from packing.pack.metadata import Names
from packing.pack.metadata import slugify as make_slug
from packing.pack.write_bundle import pack
from tests.conftest import NAMES, Workshop


def read_tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_holds_these_files_and_no_others(workshop: Workshop) -> None:
    assert sorted(read_tree(workshop.bundle)) == [
        "dataset/culture.onnx",
        "dataset/dataset-metadata.json",
        "dataset/everything.onnx",
        "dataset/inference.pyz",
        "dataset/labels.csv",
        "dataset/tag.onnx",
        "dataset/weights_manifest.json",
        "kernel/kernel-metadata.json",
        "kernel/kernel.ipynb",
    ]
    assert check_bundle(workshop.bundle) == check_bundle(workshop.dataset)


def test_two_packs_of_the_same_inputs_are_byte_identical(workshop: Workshop, tmp_path: Path) -> None:
    pack(workshop.manifest, workshop.onnx, tmp_path / "again", NAMES)
    assert read_tree(tmp_path / "again") == read_tree(workshop.bundle)


def test_the_bundles_manifest_declares_no_checkpoint_or_out_of_fold_file(workshop: Workshop) -> None:
    manifest = read_manifest(workshop.dataset / MANIFEST_NAME)
    assert all(model.checkpoint is None and model.out_of_fold is None for model in manifest.models)
    assert manifest.runtime.script is not None
    assert manifest.runtime.script.sha256 == hash_file(workshop.dataset / "inference.pyz")


def test_the_kernel_has_no_internet_one_accelerator_and_the_dataset(workshop: Workshop) -> None:
    metadata = json.loads((workshop.bundle / "kernel" / "kernel-metadata.json").read_text())
    assert metadata["enable_internet"] is False and metadata["enable_gpu"] is True
    assert metadata["id"] == "museum-owner/tiny-bundle-kernel"
    assert metadata["dataset_sources"] == ["museum-owner/tiny-bundle"]
    assert metadata["competition_sources"] == ["tiny-competition"]
    notebook = nbformat.read(workshop.bundle / "kernel" / "kernel.ipynb", as_version=4)
    assert 'OWNER, SLUG, COMPETITION = "museum-owner", "tiny-bundle", "tiny-competition"' in notebook.cells[1].source
    assert not any("{{" in cell.source for cell in notebook.cells)


def test_an_earlier_pack_is_replaced_and_other_files_are_not(own_workshop: Workshop) -> None:
    (own_workshop.dataset / "old.onnx").touch()
    pack(own_workshop.manifest, own_workshop.onnx, own_workshop.bundle, NAMES)
    assert not (own_workshop.dataset / "old.onnx").exists()
    (own_workshop.bundle / "thesis.txt").touch()
    with pytest.raises(OutputError) as error:
        pack(own_workshop.manifest, own_workshop.onnx, own_workshop.bundle, NAMES)
    assert str(error.value) == (
        f"{own_workshop.bundle}: found files that `pack` did not write; choose a new folder with --out"
    )
    assert (own_workshop.bundle / "thesis.txt").exists()


def test_a_pack_that_fails_leaves_nothing_behind(own_workshop: Workshop, tmp_path: Path) -> None:
    (own_workshop.onnx / "tag.onnx").unlink()
    with pytest.raises(VitrineError):
        pack(own_workshop.manifest, own_workshop.onnx, tmp_path / "out" / "bundle", NAMES)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (Names("me", "tiny", "Tiny bundle", "c"), "dataset-metadata.json: `id`: found 'me/tiny'; wanted a slug of 6 to 50 of a-z, 0-9 and -"),
        (Names("me", "Tiny-Bundle", "Tiny bundle", "c"), "dataset-metadata.json: `id`: found 'me/Tiny-Bundle'; wanted a slug of 6 to 50 of a-z, 0-9 and -"),
        (Names("", "tiny-bundle", "Tiny bundle", "c"), "dataset-metadata.json: `id`: found '/tiny-bundle'; wanted OWNER/SLUG with your Kaggle user name"),
        (Names("me", "tiny-bundle", "Tiny", "c"), "dataset-metadata.json: `title`: found 'Tiny'; wanted 6 to 50 characters"),
    ],
)  # fmt: skip
def test_names_that_kaggle_refuses_are_refused_before_packing(
    names: Names, message: str, workshop: Workshop, tmp_path: Path
) -> None:
    with pytest.raises(PackError) as error:
        pack(workshop.manifest, workshop.onnx, tmp_path / "bundle", names)
    assert str(error.value) == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "title",
    ["Tiny bundle kernel", "iMet 2019: 1,103 labels", "A_b--c (v2.1)", "Musée d'Orsay", "  spaces  ", "Über-Zoo №"],
)
def test_slugs_match_kaggles_client(title: str) -> None:
    slugify = pytest.importorskip("slugify").slugify
    assert make_slug(title) == slugify(title)


@pytest.mark.parametrize(
    ("name", "gpu", "shape"),
    [
        ("T4x2", True, "NvidiaTeslaT4"),
        ("p100", True, "NvidiaTeslaP100"),
        ("L4", True, "NvidiaL4X1"),
        ("cpu", False, ""),
    ],
)
def test_the_metadata_requests_the_accelerator(
    name: str, gpu: bool, shape: str, workshop: Workshop, tmp_path: Path
) -> None:
    pack(workshop.manifest, workshop.onnx, tmp_path / "bundle", NAMES, find_accelerator(name))
    metadata = json.loads((tmp_path / "bundle" / "kernel" / "kernel-metadata.json").read_text())
    assert (metadata["enable_gpu"], metadata["machine_shape"]) == (gpu, shape)
    check_bundle(tmp_path / "bundle")


def test_an_unknown_accelerator_is_refused_with_the_known_names() -> None:
    with pytest.raises(PackError) as error:
        find_accelerator("V100")
    assert str(error.value) == "--accelerator: found 'V100'; wanted one of: T4x2, P100, L4, CPU"


def test_retired_accelerators_match_the_warnings_of_kaggles_client() -> None:
    retired = pytest.importorskip("kaggle.api.kaggle_api_extended")._RETIRED_ACCELERATORS
    for accelerator in ACCELERATORS:
        assert (accelerator.machine_shape.lower() in retired) == ("retired" in (accelerator.notice or ""))


def test_an_outdated_export_is_refused(own_workshop: Workshop) -> None:
    document = json.loads(own_workshop.manifest.read_text())
    document["models"][1]["mean"] = [0, 0, 0]
    own_workshop.manifest.write_text(json.dumps(document))
    with pytest.raises(PackError) as error:
        pack(own_workshop.manifest, own_workshop.onnx, own_workshop.bundle, NAMES)
    assert str(error.value) == (
        f"{own_workshop.onnx}: the export of culture is missing or out of date; run `build_kernel.py export`"
    )


def test_a_pack_without_an_export_says_what_to_do(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(PackError) as error:
        pack(workshop.manifest, tmp_path / "none", tmp_path / "bundle", NAMES)
    assert str(error.value) == (
        f"{tmp_path}/none: found no export; run `build_kernel.py export --out {tmp_path}/none` first"
    )


def edit(file: str, **changes: object) -> Callable[[Path], None]:
    def apply(bundle: Path) -> None:
        document: dict[str, Any] = json.loads((bundle / file).read_text())
        for key, value in changes.items():
            document[key] = value
        (bundle / file).write_text(json.dumps(document))

    return apply


def write(file: str, content: str) -> Callable[[Path], None]:
    return lambda bundle: void((bundle / file).write_text(content))


def void(_: object) -> None:
    return None


def remove(file: str) -> Callable[[Path], None]:
    return lambda bundle: (bundle / file).unlink()


def swap(file: str, old: str, new: str) -> Callable[[Path], None]:
    return lambda bundle: void((bundle / file).write_text((bundle / file).read_text().replace(old, new)))


def add_wheel(name: str) -> Callable[[Path], None]:
    """Declare a wheel that is an empty file."""

    def apply(bundle: Path) -> None:
        (bundle / "dataset" / name).touch()
        path = bundle / "dataset" / MANIFEST_NAME
        document = json.loads(path.read_text())
        document["runtime"]["wheels"] = [{"file": name, "sha256": hash_file(bundle / "dataset" / name)}]
        path.write_text(json.dumps(document))

    return apply


DATASET, KERNEL = "dataset/dataset-metadata.json", "kernel/kernel-metadata.json"
BROKEN = [
    (lambda bundle: (bundle / "dataset" / "more").mkdir(), "{bundle}/dataset/more: found a folder; wanted files only: Kaggle's client skips folders"),
    (write("dataset/a b.txt", ""), "{bundle}/dataset/a b.txt: found a name that Kaggle changes; wanted only letters, digits, '.', '_' and '-'"),
    (write("dataset/stray.txt", ""), "{bundle}/dataset/stray.txt: found a file that the manifest does not declare; remove it or pack the bundle again"),
    (write("dataset/more.tar.gz", ""), "{bundle}/dataset/more.tar.gz: found an archive; wanted none: Kaggle unpacks archives, so the kernel would not find it"),
    (write("dataset/kernel-metadata.json", ""), "{bundle}/dataset/kernel-metadata.json: found a name that Kaggle's client reserves; the file would not be uploaded; rename it"),
    (add_wheel("onnxruntime.whl"), "weights_manifest.json: `runtime.wheels[0].file`: found 'onnxruntime.whl'; wanted the name of a wheel"),
    (add_wheel("onnxruntime-1-py3-none-any.whl"), "{bundle}/dataset/onnxruntime-1-py3-none-any.whl: found an incomplete wheel; pack the bundle again with --wheels"),
    (remove("dataset/labels.csv"), "weights_manifest.json: `labels.file`: no file labels.csv in {bundle}/dataset"),
    (write("dataset/labels.csv", "x"), "weights_manifest.json: `labels.sha256`: {bundle}/dataset/labels.csv: found 2d711642b726…; wanted {labels}…; restore the file, or update the manifest"),
    (edit(DATASET, title="Tiny"), "dataset-metadata.json: `title`: found 'Tiny'; wanted 6 to 50 characters"),
    (edit(DATASET, licenses=[{"name": "other"}, {"name": "CC0-1.0"}]), "dataset-metadata.json: `licenses`: found [{{'name': 'other'}}, {{'name': 'CC0-1.0'}}]; wanted exactly one, such as [{{\"name\": \"other\"}}]"),
    (edit(DATASET, license="other"), "dataset-metadata.json: `license`: unknown key; did you mean `licenses`?"),
    (edit(DATASET, colour="red"), "dataset-metadata.json: `colour`: unknown key; Kaggle's client ignores it; remove it"),
    (remove(DATASET), "{bundle}/dataset/dataset-metadata.json: missing; pack the bundle again"),
    (write(DATASET, "[]"), "{bundle}/dataset/dataset-metadata.json: found list; wanted an object"),
    (edit(DATASET, licenses=[]), "dataset-metadata.json: `licenses`: found []; wanted exactly one, such as [{{\"name\": \"other\"}}]"),
    (edit(DATASET, subtitle="short"), "dataset-metadata.json: `subtitle`: found 'short'; wanted 20 to 80 characters, or no key"),
    (edit(DATASET, id="museum-owner/other-bundle"), "{bundle}/kernel/kernel-metadata.json: `dataset_sources`: found ['museum-owner/tiny-bundle']; wanted museum-owner/other-bundle in it"),
    (edit(KERNEL, enable_internet=True), "kernel-metadata.json: `enable_internet`: found True; wanted False"),
    (edit(KERNEL, enable_gpu=False), "kernel-metadata.json: `enable_gpu`: found False; wanted True, as `machine_shape` is 'NvidiaTeslaT4'"),
    (edit(KERNEL, enable_gpu="true"), "kernel-metadata.json: `enable_gpu`: found 'true'; wanted true or false"),
    (edit(KERNEL, machine_shape="T4"), "kernel-metadata.json: `machine_shape`: found 'T4'; wanted one of: NvidiaTeslaT4, NvidiaTeslaP100, NvidiaL4X1; or no key"),
    (edit(KERNEL, machine_shape=""), "kernel-metadata.json: `enable_gpu`: found True; wanted False, as `machine_shape` is ''"),
    (edit(KERNEL, is_private=None), "kernel-metadata.json: `is_private`: found None; wanted true or false"),
    (edit(KERNEL, language="r"), "kernel-metadata.json: `language`: found 'r'; wanted 'python'"),
    (edit(KERNEL, kernel_type="script"), "kernel-metadata.json: `kernel_type`: found 'script'; wanted 'notebook'"),
    (edit(KERNEL, code_file="main.py"), "kernel-metadata.json: `code_file`: found 'main.py'; wanted 'kernel.ipynb'"),
    (edit(KERNEL, docker_image_pinning_type="newest"), "kernel-metadata.json: `docker_image_pinning_type`: found 'newest'; wanted original or latest"),
    (edit(KERNEL, dataset_source=[]), "kernel-metadata.json: `dataset_source`: unknown key; did you mean `dataset_sources`?"),
    (edit(KERNEL, dataset_sources=["tiny-bundle"]), "kernel-metadata.json: `dataset_sources[0]`: found 'tiny-bundle'; wanted OWNER/SLUG"),
    (edit(KERNEL, competition_sources=["c/tiny-competition"]), "kernel-metadata.json: `competition_sources[0]`: found 'c/tiny-competition'; wanted the name in its URL, without /"),
    (edit(KERNEL, competition_sources=["other-competition"]), "{bundle}/kernel/kernel-metadata.json: `competition_sources`: found ['other-competition']; wanted tiny-competition in it, as in the notebook"),
    (edit(KERNEL, id="tiny-bundle-kernel"), "kernel-metadata.json: `id`: found 'tiny-bundle-kernel'; wanted OWNER/SLUG with your Kaggle user name"),
    (edit(KERNEL, title="Tiny"), "kernel-metadata.json: `title`: found 'Tiny'; wanted at least 5 characters"),
    (edit(KERNEL, title="Another title"), "kernel-metadata.json: `title`: found 'Another title'; wanted a title whose slug is tiny-bundle-kernel, as in `id`"),
    (edit(KERNEL, dataset_sources=[]), "kernel-metadata.json: `dataset_sources`: found []; wanted a list of at least one"),
    (remove(KERNEL), "{bundle}/kernel/kernel-metadata.json: missing; pack the bundle again"),
    (remove("kernel/kernel.ipynb"), "{bundle}/kernel/kernel.ipynb: no such notebook; pack the bundle again"),
    (write("kernel/kernel.ipynb", " " * 1_000_000), "{bundle}/kernel/kernel.ipynb: found 1000000 bytes; wanted fewer than 1000000, Kaggle's limit; shorten the notebook"),
    (write("kernel/kernel.ipynb", "print(1)"), "{bundle}/kernel/kernel.ipynb: not a notebook: Notebook does not appear to be JSON: 'print(1)'"),
    (edit("kernel/kernel.ipynb", cells=[]), "{bundle}/kernel/kernel.ipynb: missing the line `OWNER, SLUG, COMPETITION = …`; pack the bundle again"),
    (swap("kernel/kernel.ipynb", "museum-owner", "other-owner"), "{bundle}/kernel/kernel.ipynb: found dataset other-owner/tiny-bundle; wanted museum-owner/tiny-bundle; pack the bundle again"),
    (edit("kernel/kernel.ipynb", cells=[{"cell_type": "code"}]), "{bundle}/kernel/kernel.ipynb: not a notebook: The notebook is invalid and is missing an expected key: metadata"),
    (swap("kernel/kernel.ipynb", '"id": "grid"', '"idea": "grid"'), "{bundle}/kernel/kernel.ipynb: not a notebook: Cell is missing an id field, this will become a hard error in future nbformat versions. You may want to use `normalize()` on your notebooks before validations (available since nbformat 5.1.4). Previou"),
    (edit("kernel/kernel.ipynb", metadata={"vitrine": 1}), "{bundle}/kernel/kernel.ipynb: `metadata.vitrine.sha256`: no hash of kernel.ipynb; pack the bundle again"),
    (edit("dataset/weights_manifest.json", extra=1), "weights_manifest.json: `extra`: unknown key; known keys: decision, ensemble, labels, models, runtime, schema_version, task"),
]  # fmt: skip


@pytest.mark.parametrize(("breakage", "message"), BROKEN, ids=[message[:70] for _, message in BROKEN])
def test_check_names_what_is_broken(breakage: Callable[[Path], None], message: str, own_workshop: Workshop) -> None:
    labels = hash_file(own_workshop.dataset / "labels.csv")[:12]
    breakage(own_workshop.bundle)
    with pytest.raises(VitrineError) as error:
        check_bundle(own_workshop.bundle)
    assert str(error.value) == message.format(bundle=own_workshop.bundle, labels=labels)


def test_at_least_25_faults_have_distinct_messages() -> None:
    assert len({message for _, message in BROKEN}) == len(BROKEN) >= 25


# Changes that only the check of hashes finds: (file, text before the byte, bit that is flipped)
QUIET = [
    ("dataset/weights_manifest.json", '"time_limit": ', 0),
    ("dataset/weights_manifest.json", '"image_seconds": 20.', 0),
    ("dataset/dataset-metadata.json", '"title": "', 5),
    ("kernel/kernel-metadata.json", '"title": "', 5),
    ("kernel/kernel-metadata.json", '"id": "', 1),
    ("kernel/kernel.ipynb", "# Kaggle mounts ", 1),
    ("kernel/kernel.ipynb", "SHOWN_LABELS = ", 0),
    ("kernel/kernel.ipynb", '"weights_manifest.json": "', 0),
    ("kernel/kernel.ipynb", '"kernel.ipynb": "', 0),
]


def flip(path: Path, place: int, bit: int) -> bytes:
    """Flip a bit of a file; return the bytes before."""
    before = path.read_bytes()
    path.write_bytes(before[:place] + bytes([before[place] ^ 1 << bit]) + before[place + 1 :])
    return before


@pytest.mark.parametrize(("file", "text", "bit"), QUIET)
def test_a_flipped_bit_that_leaves_a_file_valid_is_refused_with_the_file(
    file: str, text: str, bit: int, own_workshop: Workshop
) -> None:
    path = own_workshop.bundle / file
    flip(path, path.read_bytes().index(text.encode()) + len(text.encode()), bit)
    with pytest.raises(PackError) as error:
        check_bundle(own_workshop.bundle)
    assert re.fullmatch(
        rf"{re.escape(str(path))}: found sha256 \w{{12}}…; wanted .{{12}}…, the hash at packing time; "
        "restore that file or pack the bundle again",
        str(error.value),
    )


def test_one_flipped_bit_in_any_file_of_a_bundle_is_refused_with_the_file(own_workshop: Workshop) -> None:
    files = sorted(read_tree(own_workshop.bundle))
    assert len(files) == 9
    for file in files:
        path = own_workshop.bundle / file
        before = flip(path, path.stat().st_size // 2, 0)
        with pytest.raises(VitrineError, match=re.escape(path.name)):
            check_bundle(own_workshop.bundle)
        path.write_bytes(before)
    check_bundle(own_workshop.bundle)


@pytest.mark.parametrize("file", sorted({file for file, _, _ in QUIET}))
def test_a_flipped_bit_at_any_position_is_refused(file: str, own_workshop: Workshop) -> None:
    path, random = own_workshop.bundle / file, np.random.default_rng(0)
    for place in random.choice(path.stat().st_size, 25, replace=False).tolist():
        before = flip(path, place, int(random.integers(8)))
        with pytest.raises(VitrineError):
            check_bundle(own_workshop.bundle)
        path.write_bytes(before)


def test_check_refuses_weights_in_an_external_file(own_workshop: Workshop) -> None:
    path = own_workshop.dataset / "tag.onnx"
    graph = onnx.load(path)
    onnx.save(graph, path, save_as_external_data=True, location="tag.data", size_threshold=1024)
    (own_workshop.dataset / "tag.data").unlink()
    document = json.loads((own_workshop.dataset / MANIFEST_NAME).read_text())
    document["models"][2]["onnx"]["fp32"]["sha256"] = hash_file(path)
    (own_workshop.dataset / MANIFEST_NAME).write_text(json.dumps(document))
    with pytest.raises(SessionError, match=rf"^{path}: stores `[\w.]+` in another file; export the model as one file$"):
        check_bundle(own_workshop.bundle)


def test_check_of_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError) as error:
        check_bundle(tmp_path / "none")
    assert str(error.value) == f"{tmp_path}/none: no such bundle; make one with `build_kernel.py pack`"
