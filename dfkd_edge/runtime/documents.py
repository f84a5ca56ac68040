"""JSON and text that others wrote: of bounded size and depth, with numbers that a float holds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from dfkd_edge.runtime.faults import damage
from dfkd_edge.runtime.safe_files import reading

MAX_TEXT_BYTES = 16 << 20  # Of a JSON file: a hostile one must not fill a device's memory
MAX_DEPTH = 50  # Of ours: 8; what is parsed at the limit of the stack is written beyond it
MAX_DIGITS = 300  # Below the largest float; Python before 3.11 reads a million digits for minutes


def read_raw(path: Path) -> bytes:
    """Read a small plain file.

    Raises:
        Fault: it is missing, too large or no plain file.
    """
    try:
        with reading(path) as stream:
            raw = stream.read(MAX_TEXT_BYTES + 1)
    except FileNotFoundError as error:
        raise damage("file is missing", path) from error
    except OSError as error:
        raise damage(f"file cannot be read: {error.strerror}", path) from error
    if len(raw) > MAX_TEXT_BYTES:
        raise damage("file is larger than any of ours", path)
    return raw


def parse_json(raw: bytes, path: Path) -> dict[str, Any]:
    """Read a JSON object, stricter than Python: no NaN, and no number that is infinite.

    Raises:
        Fault: it is none.
    """
    try:
        document = json.loads(
            raw.decode("utf-8"),
            parse_int=_whole_number,
            parse_float=_number,
            parse_constant=_number,
        )
    except (ValueError, RecursionError, MemoryError) as error:  # the middle one: nested too deeply
        raise damage("file cannot be read as JSON", path) from error
    if not isinstance(document, dict):
        raise damage("file holds no JSON object", path)
    if _is_deeper(document, MAX_DEPTH):
        raise damage("file cannot be read as JSON", path)
    return document


def _is_deeper(value: object, levels: int) -> bool:
    """Whether lists and objects lie within each other in more than so many levels."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return bool(inside) and (levels == 0 or any(_is_deeper(part, levels - 1) for part in inside))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        Fault: it is missing, too large or no JSON object.
    """
    return parse_json(read_raw(path), path)


def _whole_number(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError("number is too long")
    return int(text)


def _number(text: str) -> float:
    value = float(text)  # `NaN` and `Infinity` too
    if not math.isfinite(value):
        raise ValueError("number is not finite")
    return value
