"""Run as `dfkd-edge`, and as `python -m dfkd_edge`."""

import atexit
import os
import sys
from dataclasses import dataclass

from dfkd_edge.cli import main


@dataclass
class QuickEnd:
    """Ends the process with its exit code once all is written, and takes no library down.

    torch and onnxruntime destroy themselves for seconds in which a terminal stands still, and give
    back what the system takes anyway.
    """

    code: int | None = None  # None leaves the end to Python, as after a traceback

    def __call__(self) -> None:
        """Be the last exit handler; threads were joined before the first one."""
        if self.code is None:
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            return  # a broken pipe, which Python reports with an exit code of its own
        os._exit(self.code)


def program() -> None:
    """Run the command line as a process of its own."""
    end = QuickEnd()
    # called after all handlers that come later, those of libraries that a command loads; of those
    # that came before, logging's alone writes, and its streams are flushed at every record
    atexit.register(end)
    try:
        main()
    except SystemExit as stop:
        end.code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        raise
    end.code = 0


if __name__ == "__main__":
    program()
