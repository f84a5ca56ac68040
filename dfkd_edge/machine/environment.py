"""What a result was made with: machine, Python and the versions of the libraries that matter."""

from importlib.metadata import PackageNotFoundError, version

from dfkd_edge.runtime.device import describe
from dfkd_edge.version import __version__

LIBRARIES = ("torch", "timm", "open_clip_torch", "onnx", "onnxruntime", "numpy", "pillow")


def describe_environment() -> dict[str, str]:
    """Name machine and versions; what is not installed is left out."""
    facts = {"dfkd-edge": __version__, **{key: str(value) for key, value in describe().items()}}
    for name in LIBRARIES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            continue
    return facts
