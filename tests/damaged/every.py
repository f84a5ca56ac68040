"""Every target by its name; a process that needs one loads no other's libraries."""

import importlib
from typing import Any

SHARES = {
    "class-lists": 3_000,
    "settings": 1_500,
    "pictures": 3_000,
    "folders": 800,
    "safetensors": 1_200,
    "documents": 2_500,
    "bundles-host": 600,
    "bundles-pyz": 600,
    "graphs": 1_000,
    "networks": 600,
}
"""Inputs of each target, ten thousand and more in all."""
MODULES = {
    **dict.fromkeys(("bundles-host", "bundles-pyz", "graphs"), "bundles"),
    "networks": "networks",
}


def find_target(name: str) -> Any:
    """Load a target; a `tests.damaged.targets.Target`."""
    module = importlib.import_module(f"tests.damaged.{MODULES.get(name, 'targets')}")
    return next(target for target in module.TARGETS if target.name == name)
