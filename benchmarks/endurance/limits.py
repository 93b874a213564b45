"""Time limits below the time needed, and runs that become slower halfway."""

from pathlib import Path

from benchmarks.endurance.runs import Museum, Waits, finish, read_notes, time_run
from inference.task.ids import read_ids

SHARES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05, 0.02)
PAUSE = 10.0  # seconds


def shorten_the_limit(museum: Museum, folder: Path, wait: float) -> None:
    """Run with time limits that are shares of the time needed: with slow models, slow images, slow stackers."""
    assert finish(museum.start(folder / "prior" / "submission.csv", Waits(wait), "--time-limit", "0.1"))[0] == 3
    print(f"prior labels only: F2 {museum.score(folder / 'prior' / 'submission.csv'):.4f}")
    passes = sum(len(model.views) for model in museum.read_bundle()[0].models)
    for name, waits in (
        ("slow models", Waits(model=wait)),
        ("slow images", Waits(model=wait / 20, image=2 * wait * passes)),
        ("slow stackers", Waits(model=wait / 2, stacker=wait / 2 * passes)),
    ):
        out = folder / name / "submission.csv"
        needed, code, _ = time_run(museum, out, waits)
        full = museum.score(out)
        print(f"{name}, without a time limit: {needed:.1f} s, exit code {code}, F2 {full:.4f}")
        for share in SHARES:
            limit = share * needed
            spent, code, _ = time_run(museum, out, waits, limit)
            f2 = museum.score(out)
            late = "" if spent <= limit else "  LATE"
            print(
                f"{name}, time limit {share:4.0%}, {limit:6.1f} s: run time {spent:6.1f} s{late}, exit code {code}, "
                f"F2 {f2:.4f}, {f2 / full:.1%} of a full run\n{read_notes(out)}",
                flush=True,
            )


def slow_down(museum: Museum, folder: Path, wait: float) -> None:
    """Stop a run for ten seconds halfway; then make each model in turn five times slower halfway."""
    out = folder / "slower" / "submission.csv"
    needed, _, _ = time_run(museum, out, Waits(wait))
    limit = 1.2 * needed
    spent, code, _ = time_run(museum, out, Waits(wait), limit, pause=(needed / 2, PAUSE))
    end = f"exit code {code}, F2 {museum.score(out):.4f}\n{read_notes(out)}"
    print(f"stopped for {PAUSE:.0f} s halfway: run time {spent:.1f} s of {limit:.1f} s, {end}")
    models = museum.read_bundle()[0].models
    half = len(read_ids(museum.sample)) * sum(len(model.views) for model in models) // 2
    for model in models:
        spent, code, _ = time_run(museum, out, Waits(wait, slow_from=half, slow_model=model.name), limit)
        end = f"exit code {code}, F2 {museum.score(out):.4f}\n{read_notes(out)}"
        print(f"{model.name} five times slower halfway: run time {spent:.1f} s of {limit:.1f} s, {end}")
