"""Where surrogate images are saved for other programs, and what is refused before they are made.

Neither torch nor numpy here; `saved_images.py` writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from dfkd_edge.errors import (
    ArtifactError,
    ConfigError,
    EnvironmentLackingError,
    RunDirError,
    did_you_mean,
)
from dfkd_edge.files import read_json, require_writable
from dfkd_edge.pictures.labelled import SAVED_IMAGES

SaveFormat = Literal["folder", "webdataset"]
SAVE_FORMATS: tuple[SaveFormat, ...] = get_args(SaveFormat)
OPTION = "--save-images"
MARKER = "dfkd-edge images"
DESCRIPTION = SAVED_IMAGES
"""Is written first, and says to which run and in which format the images of a folder belong."""
CHOOSE = f"choose another folder for {OPTION}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SavePlan:
    """A request to save images that can be met."""

    folder: Path
    format: SaveFormat
    run_key: str

    @property
    def identity(self) -> dict[str, str]:
        """What the description of a folder must say for it to be gone on with."""
        return {"marker": MARKER, "run_key": self.run_key, "format": self.format}


def plan_saving(
    folder: Path | None, wanted: str | None, output: Path, run_key: str
) -> SavePlan | None:
    """Check where and how the images of a run are to be saved; None where they are not.

    Args:
        folder: `--save-images`.
        wanted: `--save-format`; None takes the first one.
        output: the run directory.
        run_key: hash of all that makes the run.

    Raises:
        UsageError: the format is unknown, or something else lies in the folder.
        EnvironmentLackingError: a library is missing, or the folder cannot be written.
    """
    formats = {name: name for name in SAVE_FORMATS}
    if wanted is not None and wanted not in formats:
        what = f"unknown format '{wanted}'"
        raise ConfigError(what, where="--save-format", hint=did_you_mean(wanted, formats))
    if folder is None:
        if wanted is not None:
            hint = f"add {OPTION} DIR"
            raise ConfigError("no folder to save in", where="--save-format", hint=hint)
        return None
    chosen = formats[wanted] if wanted is not None else SAVE_FORMATS[0]
    if chosen == "folder" and find_spec("pyarrow") is None:
        raise EnvironmentLackingError(
            "pyarrow is not installed",
            where=OPTION,
            hint="pip install 'dfkd-edge[images]', or --save-format webdataset",
        )
    place, run = folder.resolve(), output.resolve()
    if place.is_relative_to(run) or run.is_relative_to(place):
        raise RunDirError("images and run are in one folder", where=str(folder), hint=CHOOSE)
    plan = SavePlan(folder=folder, format=chosen, run_key=run_key)
    refuse_other_images(folder, plan.identity)
    require_writable(folder, OPTION)
    return plan


def refuse_other_images(folder: Path, identity: dict[str, str]) -> None:
    """Leave a folder alone in which other things lie than a part of these images.

    Raises:
        RunDirError: they do.
    """
    if folder.is_file():
        raise RunDirError("is a file, not a folder", where=str(folder), hint=CHOOSE)
    if not folder.is_dir() or all(is_leftover(path) for path in folder.iterdir()):
        return
    try:
        known = read_json(folder / DESCRIPTION)
    except ArtifactError:
        known = {}
    if known.get("marker") != MARKER:
        what = "folder is not empty and holds no saved images"
        raise RunDirError(what, where=str(folder), hint=CHOOSE)
    if any(known.get(name) != value for name, value in identity.items()):
        what = "folder holds images of another run or format"
        raise RunDirError(what, where=str(folder), hint=CHOOSE)


def is_leftover(path: Path) -> bool:
    """Whether a file is one that a kill left half written."""
    return path.name.startswith(".") and path.suffix == ".tmp"
