"""A zoo without models, to add some to."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from inference.manifest.file import MANIFEST_NAME, read_manifest, write_manifest
from inference.manifest.model import Model
from inference.manifest.records import Manifest
from inference.manifest.task import Task
from packing.add.add import Added, add_model
from packing.add.declare import Addition
from tests.conftest import LABELS, write_network, write_rows
from zoo.edit import create_manifest

SIZE = 32


@dataclass(frozen=True)
class Zoo:
    """The folder of a manifest with five labels in two groups."""

    home: Path

    @property
    def path(self) -> Path:
        return self.home / MANIFEST_NAME

    @property
    def manifest(self) -> Manifest:
        return read_manifest(self.path)

    def add(self, file: str = "net.safetensors", **changes: object) -> Added:
        """Add a file of the folder, test_resnet for group tag unless `changes` say otherwise; made if it is missing."""
        checkpoint = self.home / file
        given: dict[str, object] = {"architecture": "test_resnet", "image_size": SIZE, "group": "tag", **changes}
        if not checkpoint.exists() and checkpoint.suffix == ".safetensors":
            write_network(checkpoint, "test_resnet", 3, seed=9)
        return add_model(self.path, Addition(checkpoint, **given))  # type: ignore[arg-type]

    def add_declared(self, **changes: object) -> Model:
        """Add a model and return its entry as read from the manifest."""
        self.add(**changes)  # type: ignore[arg-type]
        return self.manifest.models[-1]


@pytest.fixture
def zoo(tmp_path: Path, one_thread: None) -> Zoo:
    home = tmp_path / "zoo"
    home.mkdir()
    labels = write_rows(home / "labels.csv", ("attribute_id", "attribute_name"), list(enumerate(LABELS)))
    train = write_rows(home / "train.csv", ("id", "attribute_ids"), [("a", "0 2"), ("b", "1 2 3"), ("c", "4")])
    write_manifest(create_manifest(home / MANIFEST_NAME, labels, train, Task()), home / MANIFEST_NAME)
    return Zoo(home)
