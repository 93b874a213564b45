"""Fuzz targets: for any bytes, each reader of untrusted files either succeeds or raises its own error.

A target takes bytes and raises another error if the reader does not. test_fuzz.py runs them with Hypothesis, run.py
with atheris.
"""

import io
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from inference.basics.errors import ImageError, ManifestError, SessionError, TableError
from inference.images.geometry import Draft, Geometry
from inference.images.read import read_squares
from inference.manifest.decision import Decision, GroupDecision
from inference.manifest.file import read_manifest, write_manifest
from inference.manifest.labels import read_group_prefixes, read_labels
from inference.manifest.model import Model, Resize
from inference.manifest.records import Ensemble, LabelsEntry, Manifest
from inference.manifest.task import Task
from inference.models.graphs import check_graph
from inference.task.ids import read_ids
from inference.task.sample import Sample
from inference.task.submission import check_submission

Target = Callable[[bytes], None]
GEOMETRY = Geometry((16, 16), Resize("crop"), "bilinear")
DRAFT = Draft(1.0, frozenset([GEOMETRY]))


def fuzz_image(content: bytes) -> None:
    """Check for a square of the right shape, or an ImageError that names the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image.png")
        path.write_bytes(content)
        for draft in (None, DRAFT):
            try:
                square = read_squares(path, [GEOMETRY], max_pixels=1_000_000, draft=draft)[GEOMETRY]
            except ImageError as error:
                assert str(error).startswith("image.png: ") and folder not in str(error)
            else:
                assert square.shape == (16, 16, 3) and square.dtype == np.uint8


def fuzz_manifest(content: bytes) -> None:
    """Check for a manifest that is unchanged after writing and reading, or a ManifestError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "manifest.json")
        path.write_bytes(content)
        try:
            manifest = read_manifest(path)
        except ManifestError as error:
            assert "manifest.json" in str(error)
        else:
            write_manifest(manifest, path)
            assert read_manifest(path) == manifest


def fuzz_table(content: bytes) -> None:
    """Check each reader of tables for rows, or a TableError that names the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.csv")
        path.write_bytes(content)
        for read in (read_ids, read_group_prefixes):
            try:
                found = read(path)
            except TableError as error:
                assert str(path) in str(error)
            else:
                assert len(set(found)) == len(found)
        try:
            labels = read_labels(path, {"culture": "culture::", "tag": "tag::"})
            assert sorted(column for columns in labels.groups.values() for column in columns) == list(
                range(len(labels.ids))
            )
            check_submission(path, Sample(("id", "attribute_ids"), ("a",)), labels, Task())
        except TableError as error:
            assert str(path) in str(error)


def fuzz_graph(content: bytes) -> None:
    """Check that a graph is accepted, or refused with a SessionError that names the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(content)
        try:
            check_graph(path)
        except SessionError as error:
            assert str(path) in str(error)


TARGETS: Mapping[str, Target] = {
    "image": fuzz_image,
    "manifest": fuzz_manifest,
    "table": fuzz_table,
    "graph": fuzz_graph,
}


def make_seeds(name: str) -> list[bytes]:
    """Return the initial corpus of a target: small valid inputs."""
    return {"image": _make_images, "manifest": _make_manifests, "table": _make_tables, "graph": _make_graphs}[name]()


def _make_images() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((20, 15), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds: list[tuple[Image.Image, str, dict[str, object]]] = [
        (picture, "PNG", {"exif": exif}),
        # Not compressed, so that mutations change pixels.
        (picture, "PNG", {"compress_level": 0}),
        (picture.convert("L"), "PNG", {"compress_level": 0}),
        (picture.convert("P"), "PNG", {"transparency": 3}),
        (picture.convert("RGBA"), "PNG", {"dpi": (72, 72)}),
        (picture.convert("1"), "PNG", {}),
        (Image.fromarray(np.arange(300, dtype=np.uint16).reshape(15, 20) * 200), "PNG", {}),
        (picture, "PNG", {"save_all": True, "append_images": [picture.rotate(90)]}),
        (picture, "JPEG", {"exif": exif}),
        (picture, "JPEG", {"progressive": True, "quality": 95}),
        (picture.convert("L"), "JPEG", {}),
        (picture.convert("CMYK"), "JPEG", {}),
    ]
    return [_encode(image, suffix, options) for image, suffix, options in kinds]


def _encode(image: Image.Image, suffix: str, options: dict[str, object]) -> bytes:
    file = io.BytesIO()
    image.save(file, suffix, **options)
    return file.getvalue()


def _make_manifests() -> list[bytes]:
    manifest = Manifest(
        labels=LabelsEntry("labels.csv", "0" * 64, {"culture": "culture::", "tag": "tag::"}),
        models=(Model("tiny", "resnet10t", "all", 64, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "bicubic"),),
        ensemble=Ensemble({"culture": {"tiny": 1.0}, "tag": {"tiny": 0.5}}),
        decision=Decision(
            {group: GroupDecision(0.2, 0, 8) for group in ("culture", "tag")}, {"culture": (0,), "tag": (3,)}
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "manifest.json")
        write_manifest(manifest, path)
        whole = path.read_text()
    return [whole.encode(), json.dumps(json.loads(whole)).encode()]


def _make_tables() -> list[bytes]:
    return [
        b"id,attribute_ids\na,0 1\nb,2\n",
        b"attribute_id,attribute_name\n0,culture::greek\n1,tag::birds\n",
        b'\xef\xbb\xbfattribute_id,attribute_name,id,attribute_ids\r\n0,"culture::a ""b""",a,0\r\n7,tag::d,b,0 7\r\n',
    ]


def _make_graphs() -> list[bytes]:
    def encode(field: int, content: bytes) -> bytes:
        return bytes([field << 3 | 2, len(content)]) + content

    def nest(tensor: bytes) -> bytes:
        branch = encode(5, encode(6, encode(5, tensor)))  # a graph in an attribute of a node
        return b"\x08\x0a" + encode(7, encode(1, branch) + encode(5, tensor))

    tensor = b"\x08\x02\x10\x01" + encode(8, b"weight") + encode(9, b"\0" * 8)
    return [nest(tensor), nest(tensor + encode(13, encode(1, b"location")) + b"\x70\x01")]
