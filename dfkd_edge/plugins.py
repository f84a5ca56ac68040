"""Finds exporters by name, through entry points: the core names no backend, packages add theirs."""

from importlib.metadata import entry_points
from typing import Any, Literal, overload

from dfkd_edge import interfaces
from dfkd_edge.errors import ConfigError, EnvironmentLackingError, did_you_mean

EXPORTERS = "dfkd_edge.exporters"  # Entry-point group: a name -> a class, or a function


@overload
def load_exporter(name: Literal["onnx"]) -> interfaces.StudentExporter: ...
@overload
def load_exporter(name: Literal["fp16"]) -> interfaces.CastingExporter: ...
@overload
def load_exporter(name: Literal["int8"]) -> interfaces.QuantizingExporter: ...
@overload
def load_exporter(name: Literal["head"]) -> interfaces.HeadExporter: ...
@overload
def load_exporter(name: Literal["variant"]) -> interfaces.VariantExporter: ...
@overload
def load_exporter(name: Literal["runner"]) -> interfaces.RunnerMaker: ...
@overload
def load_exporter(name: Literal["oracle"]) -> interfaces.GraphOracle: ...
@overload
def load_exporter(name: str) -> Any: ...  # most likely a GraphExporter; the package knows
def load_exporter(name: str) -> Any:
    """Load one backend by name.

    Returns:
        What the entry point names; a class is made first, without arguments.

    Raises:
        ConfigError: there is no such exporter; the nearest name is suggested.
        EnvironmentLackingError: a library that it needs is not installed.
    """
    found = {point.name: point for point in entry_points(group=EXPORTERS)}  # other packages' too
    if name not in found:
        raise ConfigError(f"unknown exporter '{name}'", hint=did_you_mean(name, found))
    try:
        loaded = found[name].load()
    except ImportError as error:
        raise EnvironmentLackingError(
            f"exporter '{name}' lacks {error.name or error}", hint="pip install it"
        ) from error
    return loaded() if isinstance(loaded, type) else loaded
