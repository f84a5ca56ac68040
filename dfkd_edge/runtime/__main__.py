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

import zipfile
from pathlib import Path


def is_damaged(archive: Path) -> bool:
    """Whether something in it is not as it was packed: Python runs what it can still unpack."""
    try:
        with zipfile.ZipFile(str(archive)) as packed:
            return packed.testzip() is not None
    except Exception:  # those of zipfile and zlib share no base class
        return True


def run() -> "int | str":
    """Look at this archive, then check the bundle; returns the exit code, or a last word."""
    archive = Path(__file__).parent.resolve()
    if archive.is_file() and is_damaged(archive):
        hint = "copy the bundle again, or export it again"
        return "error: file is damaged (" + str(archive) + "): " + hint
    from dfkd_edge.runtime.check import main

    return main()


sys.exit(run())
# reached where a flipped byte made less of the line above: no byte may make a success of it
sys.exit("error: file is damaged (check.pyz)")
