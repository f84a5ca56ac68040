"""Names of settings as users type them: the flags of the command line and of the Python API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike, fspath

DISTILL: Mapping[str, str] = {
    "images": "few_shot.images",
    "teacher": "teacher.name",
    "pretrained": "teacher.pretrained",
    "student": "distillation.student",
    "student_init": "distillation.student_init",
    "prompts": "prompts.method",
    "num_styles": "prompts.num_styles",
    "synthesis": "synthesis.method",
    "imgsz": "distillation.image_size_px",
    "steps": "distillation.num_steps",
    "batch_size": "distillation.batch_size",
}
"""Flags of `distill` that name a setting otherwise; the rest are called like the setting."""
EXPORT: Mapping[str, str] = {
    "calib_size": "calibration_size",
    "calib_data": "calibration_data",
}
"""Flags of `export` that are called otherwise than the field of `[export]`."""


def distill_overrides(flags: Mapping[str, object]) -> list[str]:
    """Write what was given as the `a.b=c` texts that `load_config` reads.

    Args:
        flags: by name; None counts as not given, and a mapping as a whole section:
            `{"synthesis": {"num_images": 300}}`.
    """
    texts = []
    for name, value in flags.items():
        if isinstance(value, Mapping):
            texts += [_text(f"{name}.{key}", inner) for key, inner in value.items()]
        elif value is not None:
            texts.append(_text(DISTILL.get(name, name), value))
    return texts


def export_overrides(flags: Mapping[str, object]) -> list[str]:
    """Write the flags of `export` as `export.key=value` texts; None counts as not given."""
    given = {name: value for name, value in flags.items() if value is not None}
    return [_text(f"export.{EXPORT.get(name, name)}", value) for name, value in given.items()]


def _text(key: str, value: object) -> str:
    plain = fspath(value) if isinstance(value, PathLike) else value
    return f"{key}={json.dumps(plain, ensure_ascii=False)}"
