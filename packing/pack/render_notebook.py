"""The notebook of a bundle, rendered from kernel_template.ipynb with the names and hashes of the bundle."""

import hashlib
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import jinja2
import nbformat

from inference.basics.errors import PackError
from inference.basics.files import hash_file
from inference.manifest.file import MANIFEST_NAME
from inference.manifest.task import Task
from packing.accelerators import DEFAULT, Accelerator
from packing.pack.metadata import MAX_NOTEBOOK_BYTES, NOTEBOOK, Names

NAMES = re.compile(r'^OWNER, SLUG, COMPETITION = "([^"]*)", "([^"]*)", "([^"]*)"$', re.MULTILINE)
TEMPLATE = Path(__file__).parents[2] / "kernel_template.ipynb"
OWN_KEY = "vitrine"  # in the notebook's metadata
BLANK = "0" * 64  # placeholder of the notebook's own hash while that is computed


def render_notebook(names: Names, hashes: Mapping[str, str], task: Task, accelerator: Accelerator = DEFAULT) -> str:
    """Return the notebook's JSON; each cell of the template is a separate jinja2 template.

    `hashes`: sha256 by file name of the manifest and the other files that the manifest does not declare.
    """
    notebook = nbformat.read(TEMPLATE, as_version=4)  # type: ignore[no-untyped-call]
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    for cell in notebook.cells:
        cell.source = environment.from_string(cell.source).render(
            names=names, task=task, accelerator=accelerator, manifest_sha256=hashes[MANIFEST_NAME]
        )
    return seal_notebook(notebook, hashes)


def seal_notebook(notebook: nbformat.NotebookNode, hashes: Mapping[str, str]) -> str:
    """Return the notebook's JSON with the hashes and its own one in its metadata, for `check_hashes`."""
    notebook.metadata[OWN_KEY] = {"sha256": {**hashes, NOTEBOOK: BLANK}}
    text = str(nbformat.writes(notebook)) + "\n"  # type: ignore[no-untyped-call]
    return text.replace(BLANK, hashlib.sha256(text.encode()).hexdigest())


def check_notebook(path: Path) -> tuple[str, str, str]:
    """Return the owner, slug and competition that the notebook names.

    Raises PackError: not nbformat, over Kaggle's 1 MB, or without these names.
    """
    if not path.is_file():
        raise PackError(f"{path}: no such notebook; pack the bundle again")
    size = path.stat().st_size
    if size >= MAX_NOTEBOOK_BYTES:
        raise PackError(
            f"{path}: found {size} bytes; wanted fewer than {MAX_NOTEBOOK_BYTES}, Kaggle's limit; shorten the notebook"
        )
    try:
        with warnings.catch_warnings():
            # nbformat repairs a missing or repeated cell id and warns; every cell of the template has a unique id.
            warnings.simplefilter("error")
            notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
            nbformat.validate(notebook)
    except (nbformat.ValidationError, ValueError, AttributeError, KeyError, Warning) as error:
        raise PackError(f"{path}: not a notebook: {str(error).splitlines()[0][:200]}") from error
    found = NAMES.search("\n".join(cell.source for cell in notebook.cells))
    if not found:
        raise PackError(f"{path}: missing the line `OWNER, SLUG, COMPETITION = …`; pack the bundle again")
    return found[1], found[2], found[3]


def check_hashes(path: Path, files: Iterable[Path]) -> None:
    """Compare the notebook at `path` and the files with the hashes in the notebook's metadata.

    Raises PackError: a file has another hash, or none in the metadata.
    """
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    try:
        wanted = {name: str(digest) for name, digest in notebook.metadata[OWN_KEY]["sha256"].items()}
    except (KeyError, TypeError, AttributeError):
        wanted = {}
    own = wanted.get(NOTEBOOK, BLANK).encode()
    # The notebook first, because it holds the other hashes.
    found = {path: hashlib.sha256(path.read_bytes().replace(own, BLANK.encode())).hexdigest()}
    found |= {file: hash_file(file) for file in files}
    for file, digest in found.items():
        if file.name not in wanted:
            raise PackError(f"{path}: `metadata.{OWN_KEY}.sha256`: no hash of {file.name}; pack the bundle again")
        if digest != wanted[file.name]:
            raise PackError(
                f"{file}: found sha256 {digest[:12]}…; wanted {wanted[file.name][:12]}…, the hash at packing time; "
                "restore that file or pack the bundle again"
            )
