"""Names of teachers and students, read from the libraries' files: a typing error costs no import.

Importing torch, open_clip and timm takes seconds; a wrong name is refused before.
"""

import importlib.util
import re
from pathlib import Path

from dfkd_edge.config.settings import MINI
from dfkd_edge.errors import ConfigError, did_you_mean

MINI_BACKBONE = "efficientnet_lite1_slim"
"""Network of the embedded student, which `students` registers in timm: no file of timm has it."""

PLACES = ("hf-hub:", "local-dir:")
"""What open_clip's names of places start with."""


def require_teacher(name: str, what: str = "teacher") -> None:
    """Refuse a CLIP that neither we nor open_clip know; folders and `hf-hub:` names pass.

    Args:
        name: as a setting has it.
        what: it is for; the flag is called so.

    Raises:
        ConfigError: unknown name, with the nearest ones.
    """
    known = [path.stem for path in (open_clip_folder() / "model_configs").glob("*.json")]
    if ":" not in name and not Path(name).is_dir():
        listed = "dfkd-edge teachers list shows the usual ones"
        others = f"use '{MINI}', an open_clip name or a local folder; {listed}"
        _require(what, name, [MINI, *known], others, f" {listed}")


def name_and_tag(text: str) -> tuple[str, str]:
    """Split `NAME:TAG`; the tag is empty for a name alone, a folder, and a name of a hub."""
    if Path(text).is_dir() or text.startswith(PLACES):
        return text, ""
    name, _, tag = text.partition(":")
    return name, tag


def require_student(name: str) -> None:
    """Refuse a student that neither we nor timm know.

    Raises:
        ConfigError: unknown name, with the nearest ones.
    """
    known = [MINI, MINI_BACKBONE]
    for path in (_package("timm") / "models").glob("*.py"):
        source = path.read_text(encoding="utf-8")
        known += re.findall(r"@register_model\s+def (\w+)\(", source)
    _require("student", name, known, f"use '{MINI}' or a timm name")


def open_clip_folder() -> Path:
    """Where the installed open_clip lies; it is not imported."""
    return _package("open_clip")


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else Path()


def _require(what: str, name: str, known: list[str], otherwise: str, more: str = "") -> None:
    if name not in known:
        hint = did_you_mean(name, known, otherwise, num_names=3)
        hint += more * (hint != otherwise)
        raise ConfigError(f"unknown {what} '{name}'", where=f"--{what}", hint=hint)
