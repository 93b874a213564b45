"""The two metadata files and Kaggle's rules for them, taken from the source of its client."""

import difflib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inference.basics.errors import PackError
from packing.accelerators import ACCELERATORS, DEFAULT, Accelerator

DATASET_METADATA = "dataset-metadata.json"
KERNEL_METADATA = "kernel-metadata.json"
NOTEBOOK = "kernel.ipynb"
MAX_NOTEBOOK_BYTES = 1_000_000
_SLUG = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_OWNER = re.compile(r"[A-Za-z0-9_-]+")
_KERNEL_KEYS = {"code_file": NOTEBOOK, "language": "python", "kernel_type": "notebook", "enable_internet": False}
# The keys that the client reads. It ignores other keys without a message, misspelt ones too.
_KNOWN_KEYS = {
    DATASET_METADATA: "id id_no title subtitle description licenses keywords resources collaborators data",
    KERNEL_METADATA: "id id_no title code_file language kernel_type is_private enable_gpu enable_tpu enable_internet "
    "dataset_sources competition_sources kernel_sources model_sources keywords docker_image_pinning_type docker_image "
    "machine_shape",
}


@dataclass(frozen=True)
class Names:
    """Names of a bundle on Kaggle. The kernel's slug follows from its title, as Kaggle requires."""

    owner: str
    """Kaggle user name."""
    slug: str
    """The dataset's name in its URL."""
    title: str
    competition: str
    """The competition's name in its URL."""

    @property
    def dataset_id(self) -> str:
        """OWNER/SLUG of the dataset."""
        return f"{self.owner}/{self.slug}"

    @property
    def kernel_title(self) -> str:
        """Title of the notebook."""
        return f"{self.title} kernel"

    @property
    def kernel_id(self) -> str:
        """OWNER/SLUG of the notebook."""
        return f"{self.owner}/{slugify(self.kernel_title)}"


def make_dataset_metadata(names: Names) -> dict[str, Any]:
    """Return the content of dataset-metadata.json. Raises PackError: a name breaks Kaggle's rules."""
    document = {"id": names.dataset_id, "title": names.title, "licenses": [{"name": "other"}]}
    check_dataset_metadata(document)
    return document


def make_kernel_metadata(
    names: Names, accelerator: Accelerator = DEFAULT, attached: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the content of kernel-metadata.json; `attached`: OWNER/SLUG of further datasets.

    Raises PackError: a name breaks Kaggle's rules.
    """
    document = {
        "id": names.kernel_id,
        "title": names.kernel_title,
        **_KERNEL_KEYS,
        "is_private": True,
        "enable_gpu": accelerator.devices > 0,
        "machine_shape": accelerator.machine_shape,
        "docker_image_pinning_type": "original",
        "dataset_sources": [names.dataset_id, *attached],
        "competition_sources": [names.competition],
        "kernel_sources": [],
        "model_sources": [],
    }
    check_kernel_metadata(document)
    return document


def check_dataset_metadata(document: Mapping[str, Any]) -> None:
    """Check the keys and values. Raises PackError for the first that Kaggle would refuse."""
    _check_keys(document, DATASET_METADATA)
    _check_id(document.get("id"), DATASET_METADATA, low=6)
    title = document.get("title")
    _want(DATASET_METADATA, "title", title, isinstance(title, str) and 6 <= len(title) <= 50, "6 to 50 characters")
    licences = document.get("licenses")
    one = (
        isinstance(licences, list) and len(licences) == 1 and isinstance(licences[0], dict) and licences[0].get("name")
    )
    _want(DATASET_METADATA, "licenses", licences, bool(one), 'exactly one, such as [{"name": "other"}]')
    subtitle = document.get("subtitle")
    if subtitle is not None:
        fits = isinstance(subtitle, str) and 20 <= len(subtitle) <= 80
        _want(DATASET_METADATA, "subtitle", subtitle, fits, "20 to 80 characters, or no key")


def check_kernel_metadata(document: Mapping[str, Any]) -> None:
    """Check the keys and values. Raises PackError for the first that Kaggle would refuse or misread."""
    _check_keys(document, KERNEL_METADATA)
    _check_id(document.get("id"), KERNEL_METADATA, low=5)
    title, slug = document.get("title", ""), document["id"].partition("/")[2]
    _want(KERNEL_METADATA, "title", title, isinstance(title, str) and len(title) >= 5, "at least 5 characters")
    _want(KERNEL_METADATA, "title", title, slugify(title) == slug, f"a title whose slug is {slug}, as in `id`")
    for key, wanted in _KERNEL_KEYS.items():
        found = document.get(key)
        _want(KERNEL_METADATA, key, found, found == wanted, repr(wanted))
    for key in ("is_private", "enable_gpu"):
        found = document.get(key)
        _want(KERNEL_METADATA, key, found, isinstance(found, bool), "true or false")
    _check_machine(document)
    pinning = document.get("docker_image_pinning_type", "original")
    _want(
        KERNEL_METADATA, "docker_image_pinning_type", pinning, pinning in ("original", "latest"), "original or latest"
    )
    _check_sources(document, "dataset_sources", "OWNER/SLUG", _is_reference)
    _check_sources(
        document, "competition_sources", "the name in its URL, without /", lambda name: bool(_SLUG.fullmatch(name))
    )


def slugify(title: str) -> str:
    """Return the slug of a title: 'imet-bundle-kernel' for 'iMet bundle kernel'.

    Same result as the client's python-slugify for Latin letters: without accents and without commas inside numbers.
    """
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=\d),(?=\d)", "", plain)).strip("-")


def _check_machine(document: Mapping[str, Any]) -> None:
    gpu, shape = document["enable_gpu"], document.get("machine_shape") or ""
    shapes = [accelerator.machine_shape for accelerator in ACCELERATORS if accelerator.machine_shape]
    _want(KERNEL_METADATA, "machine_shape", shape, shape in ("", *shapes), f"one of: {', '.join(shapes)}; or no key")
    _want(KERNEL_METADATA, "enable_gpu", gpu, gpu == bool(shape), f"{bool(shape)}, as `machine_shape` is {shape!r}")


def _check_sources(document: Mapping[str, Any], key: str, wanted: str, holds: Callable[[str], bool]) -> None:
    sources = document.get(key)
    _want(KERNEL_METADATA, key, sources, isinstance(sources, list) and bool(sources), "a list of at least one")
    for index, source in enumerate(sources or ()):
        _want(KERNEL_METADATA, f"{key}[{index}]", source, isinstance(source, str) and holds(source), wanted)


def _is_reference(source: str) -> bool:
    owner, _, slug = source.partition("/")
    return bool(_OWNER.fullmatch(owner)) and bool(_SLUG.fullmatch(slug))


def _check_keys(document: Mapping[str, Any], file: str) -> None:
    known = _KNOWN_KEYS[file].split()
    for key in document:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else "Kaggle's client ignores it; remove it"
            raise PackError(f"{file}: `{key}`: unknown key; {hint}")


def _check_id(value: Any, file: str, low: int) -> None:
    owner, separator, slug = value.partition("/") if isinstance(value, str) else ("", "", "")
    _want(file, "id", value, bool(separator) and bool(_OWNER.fullmatch(owner)), "OWNER/SLUG with your Kaggle user name")
    fits = low <= len(slug) <= 50 and bool(_SLUG.fullmatch(slug))
    _want(file, "id", value, fits, f"a slug of {low} to 50 of a-z, 0-9 and -")


def _want(file: str, key: str, found: object, holds: bool, wanted: str) -> None:
    if not holds:
        raise PackError(f"{file}: `{key}`: found {found!r}; wanted {wanted}")
