import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("command", ["fit", "oof", "explore", "explain", "slices", "compare", "score"])
def test_help_ends_with_an_example_and_loads_nothing_heavy(command: str) -> None:
    loaded = "import sys; sys.argv[1:] = ['{}', '--help']; import atexit; atexit.register(lambda: print(sorted("
    loaded += "{{'torch', 'timm', 'sklearn', 'pandas'}} & set(sys.modules)))); "
    loaded += "import runpy; runpy.run_module('training', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", loaded.format(command)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"example:\n  python -m training {command} " in done.stdout
    assert done.stdout.endswith("[]\n")
