"""Keeps the chatter of exporters away from the user: their warnings, logs and prints."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

CHATTY_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir", "onnxslim", "torch.export")


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Run a library quietly; errors pass."""
    loggers = [logging.getLogger(name) for name in CHATTY_LOGGERS]
    levels = [logger.level for logger in loggers]
    sink = io.StringIO()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(sink),
            contextlib.redirect_stderr(sink),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
