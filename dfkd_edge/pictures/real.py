"""The real pictures of `--images` and `--calib-data`: found before any work, without torch."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dfkd_edge.config.settings import FewShotConfig
from dfkd_edge.errors import ConfigError, faults_as_errors
from dfkd_edge.files import file_hash
from dfkd_edge.pictures.labelled import fault_of
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.folder_layouts import read_layout
from dfkd_edge.runtime.picture_walk import walk

NEEDED = "expected DIR/<class>/*.jpg, or DIR/*.jpg unlabelled"


@dataclass(frozen=True, slots=True)
class RealPictures:
    """The pictures of `--images`."""

    files: tuple[Path, ...]
    hashes: tuple[str, ...]  # SHA-256 of each file
    labels: tuple[int | None, ...]  # Index into the class list; None without class folders
    left_out: tuple[str, ...] = ()  # One line each place


def pictures_below(root: Path) -> list[Path]:
    """Every picture in a folder and its sub-folders, in order.

    Raises:
        ConfigError: there is no such folder, or no picture in it.
    """
    if not root.is_dir():
        raise ConfigError("no such folder", where=f"--calib-data {root}")
    with faults_as_errors():
        tree = walk(root)
    files = list(tree.pictures())
    if not files:
        hint = "; ".join(tree.why_unread())
        raise ConfigError("no picture in the folder", where=f"--calib-data {root}", hint=hint)
    return files


def shared_picture(files: Sequence[Path], root: Path) -> tuple[Path, Path] | None:
    """Find a picture that also lies below a folder: by content, whatever links lead to it."""
    by_size: dict[int, list[Path]] = {}  # spares hashing of most
    for file in files:
        with contextlib.suppress(OSError):  # a link to nothing: told of when it is read
            by_size.setdefault(file.stat().st_size, []).append(file)
    known: dict[str, Path] = {}
    hashed: set[int] = set()
    with faults_as_errors():
        others = walk(root).below() if root.is_dir() else ()
        for other in others:
            with contextlib.suppress(OSError):
                size = other.stat().st_size
                if size in by_size and size not in hashed:
                    hashed.add(size)
                    known |= {file_hash(file): file for file in by_size[size]}
                if size in by_size and (found := known.get(file_hash(other))):
                    return found, other
    return None


def find_real_pictures(
    config: FewShotConfig, data: str, class_names: tuple[str, ...]
) -> RealPictures | None:
    """Find DIR/<class>/* or, without class folders, DIR/*; None without `--images`.

    Args:
        config: the folder and how many are few.
        data: folder of the test pictures, or empty.
        class_names: the categories.

    Raises:
        UsageError: the folder is missing, or holds no picture, too many, test pictures, or one that
            cannot be read.
        EnvironmentLackingError: Pillow is not installed.
    """
    if not config.images:
        return None
    root, place = Path(config.images), f"--images {config.images}"
    if not root.is_dir():
        raise ConfigError("no such folder", where=place)
    found, left_out = _pictures_of(root, class_names)
    limit = config.max_per_class
    labels = [label for label in found.values() if label is not None]
    # without labels as if they were spread evenly, rounded up
    most = max(Counter(labels).values()) if labels else -(-len(found) // len(class_names))
    if not found:
        raise ConfigError("no picture", where=place, hint="; ".join((*left_out, NEEDED)))
    if most > limit:
        raise ConfigError(
            f"{most} pictures of a class, at most {limit} count as few",
            where=place,
            hint=f"leave some out, or --set few_shot.max_per_class={most}",
        )
    hashes = tuple(map(_hash, found))
    pictures = RealPictures(tuple(found), hashes, tuple(found.values()), left_out)
    _refuse_test_pictures(pictures, data)
    _refuse_unreadable(pictures)
    return pictures


def _pictures_of(
    root: Path, class_names: tuple[str, ...]
) -> tuple[dict[Path, int | None], tuple[str, ...]]:
    """Map each picture to its class, without class folders each one in the folder to None.

    Also tells what is left out.
    """
    with faults_as_errors():
        layout = read_layout(root, class_names)
        labelled: dict[Path, int | None] = {
            file: label
            for domain in layout.domains
            for file, label in zip(domain.files, domain.labels, strict=True)
        }
        if labelled:
            return labelled, tuple(layout.skipped)
        tree = walk(root)
        deeper = tree.count() - len(tree.names)
        left_out = [f"{counted(deeper, 'picture')} in folders of no class"] if deeper else []
        return dict.fromkeys(root / name for name in tree.names), (*left_out, *tree.why_unread())


def _refuse_test_pictures(pictures: RealPictures, data: str) -> None:
    """Stop when a picture to learn from is also one to be measured on (the same file content)."""
    shared = shared_picture(pictures.files, Path(data)) if data else None
    if shared:
        raise ConfigError(
            f"{shared[0].name} is also a test picture, {shared[1]}",
            where="--images",
            hint="keep the pictures of --images and --data apart",
        )


def _hash(file: Path) -> str:
    try:
        return file_hash(file)
    except OSError as error:
        what = f"picture cannot be read: {error.strerror}"
        raise ConfigError(what, where=f"--images, {file}", hint="remove or repair it") from error


def _refuse_unreadable(pictures: RealPictures) -> None:
    with faults_as_errors():
        for file in pictures.files:
            fault = fault_of(file)
            if fault:
                where = f"--images, {fault.where}"
                raise ConfigError(fault.what, where=where, hint=fault.hint) from fault
