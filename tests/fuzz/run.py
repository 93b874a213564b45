"""Coverage-guided fuzzing of one target for as long as you like; an option, not part of the tests.

    pip install atheris
    python tests/fuzz/run.py image build/fuzz/image -max_total_time=600

The folder is the corpus: the target's seeds are put there first, and libFuzzer adds what reaches new code. An input
that breaks a promise is written as crash-HASH; `TARGETS["image"](Path("crash-HASH").read_bytes())` repeats it, and a
seed of it in targets.py keeps it from coming back. What follows the folder are libFuzzer's own options.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Fuzz the target named first over the corpus named second; 1 without atheris."""
    try:
        import atheris
    except ImportError:
        print("error: atheris is not installed: pip install atheris", file=sys.stderr)
        return 1
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    sys.path.insert(0, str(ROOT))
    with atheris.instrument_imports(include=["inference", "PIL"]):
        from targets import TARGETS, make_seeds  # beside this file

    name, corpus = sys.argv[1], Path(sys.argv[2])
    corpus.mkdir(parents=True, exist_ok=True)
    for index, seed in enumerate(make_seeds(name)):
        (corpus / f"seed-{index}").write_bytes(seed)
    atheris.Setup([sys.argv[0], str(corpus), *sys.argv[3:]], TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
