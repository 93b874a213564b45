"""Coverage-guided fuzzing of one target, for any time; not part of the tests.

    pip install atheris
    python tests/fuzz/run.py image build/fuzz/image -max_total_time=600

The folder is the corpus: it starts with the target's seeds, and libFuzzer adds inputs that reach new code. An input
that makes the target fail is written as crash-HASH; `TARGETS["image"](Path("crash-HASH").read_bytes())` reproduces it.
Add it to the seeds in targets.py as a regression test. Arguments after the folder are options of libFuzzer.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Fuzz the target in the first argument with the corpus in the second; return the exit code."""
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
