"""The sample submission: its file, the column of the ids, and the columns of the answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from inference.basics.errors import OptionError, SubmissionError, TableError
from packing.init.read.tables import read_sheet
from packing.init.settings import Settings

USUAL = "sample_submission.csv"


@dataclass(frozen=True)
class SampleSheet:
    """A sample submission as text."""

    path: str
    """Relative to the competition's folder."""
    id_column: str
    columns: tuple[str, ...]
    """All others: of the answers."""
    frame: pd.DataFrame

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the rows, in file order."""
        return tuple(self.frame[self.id_column])

    @property
    def cells(self) -> tuple[str, ...]:
        """The distinct answers of the first column that are not empty."""
        return tuple(cell for cell in dict.fromkeys(self.frame[self.columns[0]]) if cell)


def read_sample_sheet(settings: Settings) -> SampleSheet:
    """Read the sample submission of a competition's folder. Its first column has the ids, unless --id-column says it.

    Raises OptionError: none, or several; TableError: it cannot be read; SubmissionError: an id is empty or
    occurs twice.
    """
    path = settings.folder / (settings.sample or find_sample(settings.folder))
    if not path.is_file():
        raise OptionError(f"--sample: {path}: no such file")
    frame = read_sheet(path)
    id_column = str(frame.columns[0])
    if settings.id_column in frame.columns:
        id_column = str(settings.id_column)
    columns = tuple(str(name) for name in frame.columns if name != id_column)
    if not columns:
        raise SubmissionError(f"{path}: found only the column {id_column}; wanted a column of the answers too")
    seen: set[str] = set()
    for row, name in enumerate(frame[id_column]):
        if not name:
            raise SubmissionError(f"{path}: row {row + 1}: found an empty {id_column}; wanted an id")
        if name in seen:
            raise SubmissionError(f"{path}: found {id_column} {name} twice; wanted unique ids")
        seen.add(name)
    return SampleSheet(path.relative_to(settings.folder).as_posix(), id_column, columns, frame)


def find_sample(folder: Path) -> str:
    """Return the name of the sample submission; raises OptionError: none, or several."""
    if not folder.is_dir():
        raise OptionError(f"{folder}: no such folder; give the folder of the competition's data")
    if (folder / USUAL).is_file():
        return USUAL
    return choose_file(
        sorted(path.name for path in folder.glob("*ubmission*.csv")), "--sample", f"{folder}/*submission*.csv"
    )


def choose_file(names: Sequence[str], option: str, wanted: str) -> str:
    """Return the only name; raises OptionError naming the option: none, or several."""
    if not names:
        raise OptionError(f"{option}: cannot be known: found no {wanted}; name the file")
    if len(names) > 1:
        raise OptionError(f"{option}: cannot be known; wanted one of: {', '.join(names)}")
    return names[0]


def check_column(frame: pd.DataFrame, column: str, path: object, option: str) -> str:
    """Return the column of that name, in any case of letters; raises TableError naming the option and the choices."""
    if column in frame.columns:
        return column
    same = [str(name) for name in frame.columns if str(name).lower() == column.lower()]
    if len(same) == 1:
        return same[0]
    raise TableError(f"{path}: no column {column}; found {', '.join(map(str, frame.columns))}; name it with {option}")
