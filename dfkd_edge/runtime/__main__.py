"""Starts check.pyz; written for any Python 3, so that an old one gets a line and no traceback."""

import sys

if sys.version_info < (3, 8):
    sys.stderr.write(
        "error: check.pyz needs Python 3.8 or newer, this is {}.{}: "
        "see recipe.md for trtexec\n".format(*sys.version_info[:2])
    )
    sys.exit(4)

try:
    import numpy  # noqa: F401
except ImportError:
    sys.stderr.write(
        "error: check.pyz needs numpy, and " + sys.executable + " has none: apt-get install "
        "python3-numpy beside JetPack's TensorRT, or pip install numpy onnxruntime elsewhere\n"
    )
    sys.exit(4)

from dfkd_edge.runtime.check import main

sys.exit(main())
