"""kernel_template.ipynb with the names filled in."""

import re
from pathlib import Path

import jinja2
import nbformat

from inference.errors import PackError
from packing.accelerators import DEFAULT, Accelerator
from packing.metadata import MAX_NOTEBOOK_BYTES, Names

NAMES = re.compile(r'^OWNER, SLUG, COMPETITION = "([^"]*)", "([^"]*)", "([^"]*)"$', re.MULTILINE)
TEMPLATE = Path(__file__).parent.parent / "kernel_template.ipynb"


def render_notebook(names: Names, accelerator: Accelerator = DEFAULT) -> str:
    """The notebook's JSON; each cell of the template is a jinja2 template of its own."""
    notebook = nbformat.read(TEMPLATE, as_version=4)  # type: ignore[no-untyped-call]
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    for cell in notebook.cells:
        cell.source = environment.from_string(cell.source).render(names=names, accelerator=accelerator)
    return str(nbformat.writes(notebook)) + "\n"  # type: ignore[no-untyped-call]


def check_notebook(path: Path) -> tuple[str, str, str]:
    """The owner, slug and competition that the notebook looks for.

    Raises PackError where Kaggle could not take it: not nbformat, or over 1 MB; or where it names none of these.
    """
    if not path.is_file():
        raise PackError(f"{path}: no such notebook; pack the bundle again")
    size = path.stat().st_size
    if size >= MAX_NOTEBOOK_BYTES:
        raise PackError(f"{path}: {size} bytes, wanted less than {MAX_NOTEBOOK_BYTES}; Kaggle refuses larger sources")
    try:
        notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        nbformat.validate(notebook)
    except (nbformat.ValidationError, ValueError, AttributeError, KeyError) as error:
        raise PackError(f"{path}: not a notebook: {str(error).splitlines()[0][:200]}") from error
    found = NAMES.search("\n".join(cell.source for cell in notebook.cells))
    if not found:
        raise PackError(f"{path}: has no line `OWNER, SLUG, COMPETITION = …`; pack the bundle again")
    return found[1], found[2], found[3]
