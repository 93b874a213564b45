import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import onnx
import pytest

from inference.errors import OutputError, PackError, VitrineError
from inference.files import hash_file
from inference.manifest import MANIFEST_NAME, read_manifest
from packing.bundle import pack
from packing.check import check_bundle
from packing.metadata import Names
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


def test_the_bundles_manifest_names_nothing_that_stays_at_home(workshop: Workshop) -> None:
    manifest = read_manifest(workshop.dataset / MANIFEST_NAME)
    assert all(model.checkpoint is None and model.out_of_fold is None for model in manifest.models)
    assert manifest.runtime.script is not None
    assert manifest.runtime.script.sha256 == hash_file(workshop.dataset / "inference.pyz")


def test_the_kernel_has_no_internet_one_accelerator_and_our_dataset(workshop: Workshop) -> None:
    metadata = json.loads((workshop.bundle / "kernel" / "kernel-metadata.json").read_text())
    assert metadata["enable_internet"] is False and metadata["enable_gpu"] is True
    assert metadata["id"] == "museum-owner/tiny-bundle-kernel"
    assert metadata["dataset_sources"] == ["museum-owner/tiny-bundle"]
    assert metadata["competition_sources"] == ["tiny-competition"]
    notebook = nbformat.read(workshop.bundle / "kernel" / "kernel.ipynb", as_version=4)
    assert 'OWNER, SLUG, COMPETITION = "museum-owner", "tiny-bundle", "tiny-competition"' in notebook.cells[1].source
    assert not any("{{" in cell.source for cell in notebook.cells)


def test_an_earlier_pack_is_replaced_and_anything_else_is_not(own_workshop: Workshop) -> None:
    (own_workshop.dataset / "old.onnx").touch()
    pack(own_workshop.manifest, own_workshop.onnx, own_workshop.bundle, NAMES)
    assert not (own_workshop.dataset / "old.onnx").exists()
    (own_workshop.bundle / "thesis.txt").touch()
    with pytest.raises(OutputError) as error:
        pack(own_workshop.manifest, own_workshop.onnx, own_workshop.bundle, NAMES)
    assert str(error.value) == (
        f"{own_workshop.bundle}: holds something other than an earlier pack; name a new folder with --out"
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
        (Names("me", "tiny", "Tiny bundle", "c"), "dataset-metadata.json: `id`: found 'me/tiny', wanted a slug of 6 to 50 of a-z, 0-9 and -"),
        (Names("me", "Tiny-Bundle", "Tiny bundle", "c"), "dataset-metadata.json: `id`: found 'me/Tiny-Bundle', wanted a slug of 6 to 50 of a-z, 0-9 and -"),
        (Names("", "tiny-bundle", "Tiny bundle", "c"), "dataset-metadata.json: `id`: found '/tiny-bundle', wanted OWNER/SLUG with your Kaggle user name"),
        (Names("me", "tiny-bundle", "Tiny", "c"), "dataset-metadata.json: `title`: found 'Tiny', wanted 6 to 50 characters"),
    ],
)  # fmt: skip
def test_names_that_kaggle_refuses_are_refused_before_packing(
    names: Names, message: str, workshop: Workshop, tmp_path: Path
) -> None:
    with pytest.raises(PackError) as error:
        pack(workshop.manifest, workshop.onnx, tmp_path / "bundle", names)
    assert str(error.value) == message
    assert list(tmp_path.iterdir()) == []


def test_an_export_out_of_date_is_refused(own_workshop: Workshop) -> None:
    document = json.loads(own_workshop.manifest.read_text())
    document["models"][1]["mean"] = [0, 0, 0]
    own_workshop.manifest.write_text(json.dumps(document))
    with pytest.raises(PackError) as error:
        pack(own_workshop.manifest, own_workshop.onnx, own_workshop.bundle, NAMES)
    assert str(error.value) == (
        f"{own_workshop.onnx}: its export of culture is missing or out of date; run `build_kernel.py export`"
    )


def test_a_pack_before_any_export_is_told_what_to_do(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(PackError) as error:
        pack(workshop.manifest, tmp_path / "none", tmp_path / "bundle", NAMES)
    assert str(error.value) == (
        f"{tmp_path}/none: holds no export; run `build_kernel.py export --out {tmp_path}/none` first"
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


DATASET, KERNEL = "dataset/dataset-metadata.json", "kernel/kernel-metadata.json"
BROKEN = [
    (lambda bundle: (bundle / "dataset" / "more").mkdir(), "{bundle}/dataset/more: a folder; Kaggle's client skips folders, so a bundle is flat"),
    (write("dataset/a b.txt", ""), "{bundle}/dataset/a b.txt: a name that Kaggle changes; wanted only letters, digits, '.', '_' and '-'"),
    (write("dataset/stray.txt", ""), "{bundle}/dataset/stray.txt: the manifest does not declare it; remove it or pack the bundle again"),
    (remove(DATASET), "{bundle}/dataset/dataset-metadata.json: missing; pack the bundle again"),
    (write(DATASET, "[]"), "{bundle}/dataset/dataset-metadata.json: found list, wanted an object"),
    (edit(DATASET, licenses=[]), "dataset-metadata.json: `licenses`: found [], wanted exactly one, as in [{{\"name\": \"other\"}}]"),
    (edit(DATASET, subtitle="short"), "dataset-metadata.json: `subtitle`: found 'short', wanted 20 to 80 characters, or none"),
    (edit(DATASET, id="museum-owner/other-bundle"), "{bundle}/kernel/kernel-metadata.json: `dataset_sources`: found ['museum-owner/tiny-bundle'], wanted museum-owner/other-bundle in it"),
    (edit(KERNEL, enable_internet=True), "kernel-metadata.json: `enable_internet`: found True, wanted False"),
    (edit(KERNEL, enable_gpu=False), "kernel-metadata.json: `enable_gpu`: found False, wanted True"),
    (edit(KERNEL, title="Another title"), "kernel-metadata.json: `title`: found 'Another title', wanted a title that Kaggle turns into the id's tiny-bundle-kernel"),
    (edit(KERNEL, dataset_sources=[]), "kernel-metadata.json: `dataset_sources`: found [], wanted a list of at least one"),
    (remove(KERNEL), "{bundle}/kernel/kernel-metadata.json: missing; pack the bundle again"),
    (remove("kernel/kernel.ipynb"), "{bundle}/kernel/kernel.ipynb: no such notebook; pack the bundle again"),
    (write("kernel/kernel.ipynb", " " * 1_000_000), "{bundle}/kernel/kernel.ipynb: 1000000 bytes, wanted less than 1000000; Kaggle refuses larger sources"),
    (edit("kernel/kernel.ipynb", cells=[{"cell_type": "code"}]), "{bundle}/kernel/kernel.ipynb: not a notebook: The notebook is invalid and is missing an expected key: metadata"),
    (edit("dataset/weights_manifest.json", extra=1), "weights_manifest.json: `extra`: unknown key; known here: decision, ensemble, labels, models, runtime, schema_version"),
]  # fmt: skip


@pytest.mark.parametrize(("breakage", "message"), BROKEN, ids=[message[:70] for _, message in BROKEN])
def test_check_names_what_is_broken(breakage: Callable[[Path], None], message: str, own_workshop: Workshop) -> None:
    breakage(own_workshop.bundle)
    with pytest.raises(VitrineError) as error:
        check_bundle(own_workshop.bundle)
    assert str(error.value) == message.format(bundle=own_workshop.bundle)


def test_check_refuses_weights_kept_in_another_file(own_workshop: Workshop) -> None:
    path = own_workshop.dataset / "tag.onnx"
    graph = onnx.load(path)
    onnx.save(graph, path, save_as_external_data=True, location="tag.data", size_threshold=1024)
    (own_workshop.dataset / "tag.data").unlink()
    document = json.loads((own_workshop.dataset / MANIFEST_NAME).read_text())
    document["models"][2]["onnx"]["fp32"]["sha256"] = hash_file(path)
    (own_workshop.dataset / MANIFEST_NAME).write_text(json.dumps(document))
    with pytest.raises(PackError, match=rf"^{path}: keeps `[\w.]+` in another file; export it as one file$"):
        check_bundle(own_workshop.bundle)


def test_check_of_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(PackError) as error:
        check_bundle(tmp_path / "none")
    assert str(error.value) == f"{tmp_path}/none: no such bundle; `build_kernel.py pack` makes one"
