"""``python -m benchmarks`` is ``python benchmarks/run_all.py``."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    here = Path(__file__).parent
    sys.path.insert(0, str(here))
    sys.argv[0] = str(here / "run_all.py")
    runpy.run_path(sys.argv[0], run_name="__main__")
