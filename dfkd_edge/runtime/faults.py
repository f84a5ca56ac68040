"""What can go wrong on the device; each fault is one line and has an exit code.

Fault             exit code 1   a file of the bundle is missing, cut short or changed
├── UsageFault    exit code 2   the request itself cannot be met
├── ProofFault    exit code 3   the model does not give what the host recorded
├── LackingFault  exit code 4   TensorRT, onnxruntime, Pillow, memory or space is not there
└── PictureFault  exit code 1   a picture cannot be read; others may be
"""

from __future__ import annotations


class Fault(Exception):
    """What is wrong, where, and what to do next, in one line."""

    exit_code = 1

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        """Compose the line."""
        self.what, self.where, self.hint = what, where, hint
        place = f" ({where})" if where else ""
        advice = f": {hint}" if hint else ""
        super().__init__(what + place + advice)


class UsageFault(Fault):
    """The request cannot be met as it stands."""

    exit_code = 2


class ProofFault(Fault):
    """The model does not give what the host recorded."""

    exit_code = 3


class LackingFault(Fault):
    """This machine lacks something."""

    exit_code = 4


class PictureFault(Fault):
    """A picture cannot be read."""
