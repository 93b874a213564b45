"""kernel_template.ipynb with the names filled in, and the hashes of what it was packed with."""

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
from packing.accelerators import DEFAULT, Accelerator
from packing.pack.metadata import MAX_NOTEBOOK_BYTES, NOTEBOOK, Names

NAMES = re.compile(r'^OWNER, SLUG, COMPETITION = "([^"]*)", "([^"]*)", "([^"]*)"$', re.MULTILINE)
TEMPLATE = Path(__file__).parents[2] / "kernel_template.ipynb"
OWN_KEY = "vitrine"  # in the notebook's metadata
BLANK = "0" * 64  # stands for the notebook's own hash while that is computed


def render_notebook(names: Names, hashes: Mapping[str, str], accelerator: Accelerator = DEFAULT) -> str:
    """The notebook's JSON; each cell of the template is a jinja2 template of its own.

    `hashes`: sha256 by name of files of the bundle that nothing else declares, the manifest among them. The notebook's
    metadata keeps them, and the notebook's own, for `check_hashes`.
    """
    notebook = nbformat.read(TEMPLATE, as_version=4)  # type: ignore[no-untyped-call]
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    for cell in notebook.cells:
        cell.source = environment.from_string(cell.source).render(
            names=names, accelerator=accelerator, manifest_sha256=hashes[MANIFEST_NAME]
        )
    notebook.metadata[OWN_KEY] = {"sha256": {**hashes, NOTEBOOK: BLANK}}
    text = str(nbformat.writes(notebook)) + "\n"  # type: ignore[no-untyped-call]
    return text.replace(BLANK, hashlib.sha256(text.encode()).hexdigest())


def check_notebook(path: Path) -> tuple[str, str, str]:
    """The owner, slug and competition that the notebook looks for.

    Raises PackError where Kaggle could not take it: not nbformat, or over 1 MB; or where it names none of these.
    """
    if not path.is_file():
        raise PackError(f"{path}: no such notebook; pack the bundle again")
    size = path.stat().st_size
    if size >= MAX_NOTEBOOK_BYTES:
        raise PackError(f"{path}: {size} bytes; wanted less than {MAX_NOTEBOOK_BYTES}; Kaggle refuses larger sources")
    try:
        with warnings.catch_warnings():
            # nbformat mends a cell that has no id, or another's, and warns; ours have ids of their own.
            warnings.simplefilter("error")
            notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
            nbformat.validate(notebook)
    except (nbformat.ValidationError, ValueError, AttributeError, KeyError, Warning) as error:
        raise PackError(f"{path}: not a notebook: {str(error).splitlines()[0][:200]}") from error
    found = NAMES.search("\n".join(cell.source for cell in notebook.cells))
    if not found:
        raise PackError(f"{path}: has no line `OWNER, SLUG, COMPETITION = …`; pack the bundle again")
    return found[1], found[2], found[3]


def check_hashes(path: Path, files: Iterable[Path]) -> None:
    """The notebook at `path` and the files are as they were packed.

    Raises PackError naming the file whose hash is not the one in the notebook's metadata, or has none there.
    """
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    try:
        wanted = {name: str(digest) for name, digest in notebook.metadata[OWN_KEY]["sha256"].items()}
    except (KeyError, TypeError, AttributeError):
        wanted = {}
    own = wanted.get(NOTEBOOK, BLANK).encode()
    # The notebook first, as the other hashes are its own.
    found = {path: hashlib.sha256(path.read_bytes().replace(own, BLANK.encode())).hexdigest()}
    found |= {file: hash_file(file) for file in files}
    for file, digest in found.items():
        if file.name not in wanted:
            raise PackError(f"{path}: its metadata has no hash of {file.name}; pack the bundle again")
        if digest != wanted[file.name]:
            raise PackError(
                f"{file}: has {digest[:12]}…; wanted {wanted[file.name][:12]}…, which it was packed with; "
                "bring that file back or pack the bundle again"
            )
