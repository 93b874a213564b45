"""Kaggle's rules for the two metadata files, after its client's source; checked before anything is uploaded."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inference.errors import PackError

DATASET_METADATA = "dataset-metadata.json"
KERNEL_METADATA = "kernel-metadata.json"
NOTEBOOK = "kernel.ipynb"
MAX_NOTEBOOK_BYTES = 1_000_000
# Two T4s; what Kaggle gives to whoever asks for the retired P100, too.
MACHINE_SHAPE = "NvidiaTeslaT4"

_SLUG = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_OWNER = re.compile(r"[A-Za-z0-9_-]+")
_KERNEL_KEYS = {
    "code_file": NOTEBOOK,
    "language": "python",
    "kernel_type": "notebook",
    "enable_gpu": True,
    "enable_internet": False,
}


@dataclass(frozen=True)
class Names:
    """How a bundle is called on Kaggle; the kernel's slug follows from its title, as Kaggle wants it."""

    owner: str
    slug: str
    title: str
    competition: str

    @property
    def dataset_id(self) -> str:
        """owner/slug of the dataset."""
        return f"{self.owner}/{self.slug}"

    @property
    def kernel_title(self) -> str:
        """Title of the notebook."""
        return f"{self.title} kernel"


def make_dataset_metadata(names: Names) -> dict[str, Any]:
    """dataset-metadata.json; raises PackError where a name breaks Kaggle's rules."""
    document = {"id": names.dataset_id, "title": names.title, "licenses": [{"name": "other"}]}
    check_dataset_metadata(document)
    return document


def make_kernel_metadata(names: Names) -> dict[str, Any]:
    """kernel-metadata.json; raises PackError where a name breaks Kaggle's rules."""
    document = {
        "id": f"{names.owner}/{slugify(names.kernel_title)}",
        "title": names.kernel_title,
        **_KERNEL_KEYS,
        "is_private": True,
        "machine_shape": MACHINE_SHAPE,
        "docker_image_pinning_type": "original",
        "dataset_sources": [names.dataset_id],
        "competition_sources": [names.competition],
        "kernel_sources": [],
        "model_sources": [],
    }
    check_kernel_metadata(document)
    return document


def check_dataset_metadata(document: Mapping[str, Any]) -> None:
    """Raises PackError naming the key that Kaggle would refuse, what was found and what it wants."""
    _check_id(document.get("id"), DATASET_METADATA, low=6)
    title = document.get("title")
    _want(DATASET_METADATA, "title", title, isinstance(title, str) and 6 <= len(title) <= 50, "6 to 50 characters")
    licences = document.get("licenses")
    one = isinstance(licences, list) and len(licences) == 1 and isinstance(licences[0], dict) and "name" in licences[0]
    _want(DATASET_METADATA, "licenses", licences, one, 'exactly one, as in [{"name": "other"}]')
    subtitle = document.get("subtitle")
    if subtitle is not None:
        fits = isinstance(subtitle, str) and 20 <= len(subtitle) <= 80
        _want(DATASET_METADATA, "subtitle", subtitle, fits, "20 to 80 characters, or none")


def check_kernel_metadata(document: Mapping[str, Any]) -> None:
    """Raises PackError naming the key that Kaggle would refuse or misread, what was found and what is wanted."""
    _check_id(document.get("id"), KERNEL_METADATA, low=5)
    title, slug = document.get("title", ""), document["id"].partition("/")[2]
    _want(KERNEL_METADATA, "title", title, isinstance(title, str) and len(title) >= 5, "at least 5 characters")
    _want(KERNEL_METADATA, "title", title, slugify(title) == slug, f"a title that Kaggle turns into the id's {slug}")
    for key, wanted in _KERNEL_KEYS.items():
        found = document.get(key)
        _want(KERNEL_METADATA, key, found, found == wanted, repr(wanted))
    for key in ("dataset_sources", "competition_sources"):
        sources = document.get(key)
        _want(KERNEL_METADATA, key, sources, isinstance(sources, list) and bool(sources), "a list of at least one")


def slugify(title: str) -> str:
    """A title as Kaggle puts it into an address: 'iMet bundle kernel' to 'imet-bundle-kernel'."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _check_id(value: Any, file: str, low: int) -> None:
    owner, separator, slug = value.partition("/") if isinstance(value, str) else ("", "", "")
    _want(file, "id", value, bool(separator) and bool(_OWNER.fullmatch(owner)), "OWNER/SLUG with your Kaggle user name")
    fits = low <= len(slug) <= 50 and bool(_SLUG.fullmatch(slug))
    _want(file, "id", value, fits, f"a slug of {low} to 50 of a-z, 0-9 and -")


def _want(file: str, key: str, found: object, holds: bool, wanted: str) -> None:
    if not holds:
        raise PackError(f"{file}: `{key}`: found {found!r}, wanted {wanted}")
