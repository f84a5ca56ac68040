"""Typed results to JSON and back: pydantic checks the frozen dataclasses of this package.

What lies in a bundle or run may come from another machine, so it is checked when it is read. The
library is imported when something is read or written, for it costs a tenth of a second.
"""

from pathlib import Path
from typing import Any, ClassVar, TypeVar

from dfkd_edge.errors import ArtifactError

Result = TypeVar("Result")
KEYS = {
    "metric": "measure",
    "is_off": "off",
    "is_within_noise": "within_noise",
    "latency_caveats": "latency_doubts",
    "onnx_latency_caveats": "onnx_latency_doubts",
    "caveats": "doubts",
}
"""Fields whose documented JSON key is another word."""
_ADAPTERS: dict[type[Any], Any] = {}


class Documented:
    """Base of results whose JSON has other keys than their fields; pydantic reads both."""

    __slots__ = ()
    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "alias_generator": lambda name: KEYS.get(name, name),
        "populate_by_name": True,
    }


def _adapter(result: type[Any]) -> Any:
    from pydantic import TypeAdapter

    if result not in _ADAPTERS:  # making one takes longer than reading with it
        _ADAPTERS[result] = TypeAdapter(result)
    return _ADAPTERS[result]


def to_json(result: object) -> dict[str, Any]:
    """Turn a result into a JSON object; tuples become lists once it is written."""
    document: dict[str, Any] = _adapter(type(result)).dump_python(result, by_alias=True)
    return document


def from_json(
    result: type[Result], document: object, where: Path | str, hint: str = "make it again"
) -> Result:
    """Read a result from a JSON object; unknown keys are passed over.

    Args:
        result: the dataclass.
        document: as `to_json` made it.
        where: named in the error.
        hint: what to do about a damaged one.

    Raises:
        ArtifactError: a key is missing or a value has another type; the first one is named.
    """
    from pydantic import ValidationError

    try:
        found: Result = _adapter(result).validate_python(document)
    except (ValidationError, RecursionError) as error:
        errors = error.errors() if isinstance(error, ValidationError) else []
        path = ".".join(str(part) for part in errors[0]["loc"]) if errors else "too deep"
        what = errors[0]["msg"].lower() if errors else "nested without end"
        damage = f"file is damaged ({path}: {what})"
        raise ArtifactError(damage, where=str(where), hint=hint) from error
    return found
