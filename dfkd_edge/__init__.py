"""dfkd-edge: from a list of class names to a compact image classifier, without a single image."""

from typing import TYPE_CHECKING

from dfkd_edge.version import __version__ as __version__

__all__ = ["benchmark", "check", "distill", "export", "lint_classes", "predict", "write_report"]
__all__ += ["list_targets", "load_student", "load_target", "open_bundle", "read_picture"]
__all__ += ["swap_classes"]
__all__ += ["DfkdEdgeError", "GateFailedError"]

if TYPE_CHECKING:
    from dfkd_edge.api import (
        DfkdEdgeError,
        GateFailedError,
        benchmark,
        check,
        distill,
        export,
        lint_classes,
        list_targets,
        load_student,
        load_target,
        open_bundle,
        predict,
        read_picture,
        swap_classes,
        write_report,
    )
else:

    def __getattr__(name: str) -> object:
        """Load the Python API on first use, so that the command line starts without torch."""
        if name not in __all__:
            raise AttributeError(f"module 'dfkd_edge' has no attribute '{name}'")
        from dfkd_edge import api

        return getattr(api, name)


def __dir__() -> list[str]:
    """Name what can be completed."""
    return sorted({*globals(), *__all__})
