"""What `python -m training fit` was asked for."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FitSettings:
    """One run of it.

    `out` takes all files; `manifest`: where the models are declared; `folds`: a table of folds that was made elsewhere;
    `fold`: only this one; `limit`: only the first rows of train.csv; `workers`: processes that read images, 0 for none;
    `save_seconds`: about how much work a kill may cost; `mixed_precision`: no, fp16, bf16, or None for what `accelerate
    launch` says.
    """

    recipe: Path
    data: Path
    out: Path
    manifest: Path | None = None
    folds: Path | None = None
    fold: int | None = None
    limit: int | None = None
    resume: bool = False
    allow_missing: bool = False
    workers: int = 1
    save_seconds: float = 600.0
    mixed_precision: str | None = None
