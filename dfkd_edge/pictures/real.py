"""The real pictures of `--images` and `--calib-data`: found before any work, without torch."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from dfkd_edge.config.settings import FewShotConfig
from dfkd_edge.errors import ConfigError, faults_as_errors
from dfkd_edge.files import file_hash
from dfkd_edge.pictures.labelled import fault_of
from dfkd_edge.runtime.folder_layouts import PICTURE_SUFFIXES, pictures_in, read_layout


@dataclass(frozen=True, slots=True)
class RealPictures:
    """The pictures of `--images`."""

    files: tuple[Path, ...]
    hashes: tuple[str, ...]  # SHA-256 of each file
    labels: tuple[int | None, ...]  # Index into the class list; None without class folders


def pictures_below(root: Path) -> list[Path]:
    """Every picture in a folder and its sub-folders, in order.

    Raises:
        ConfigError: there is no such folder, or no picture in it.
    """
    if not root.is_dir():
        raise ConfigError("no such folder", where=f"--calib-data {root}")
    files = sorted(f for f in root.rglob("*") if f.suffix.lower() in PICTURE_SUFFIXES)
    if not files:
        raise ConfigError("no picture in the folder", where=f"--calib-data {root}")
    return files


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
    found = _pictures_of(root, class_names)
    limit = config.max_per_class
    labels = [label for label in found.values() if label is not None]
    # without labels as if they were spread evenly, rounded up
    most = max(Counter(labels).values()) if labels else -(-len(found) // len(class_names))
    if not found:
        raise ConfigError(
            "no picture", where=place, hint="expected DIR/<class>/*.jpg, or DIR/*.jpg unlabelled"
        )
    if most > limit:
        raise ConfigError(
            f"{most} pictures of a class, at most {limit} count as few",
            where=place,
            hint=f"leave some out, or --set few_shot.max_per_class={most}",
        )
    pictures = RealPictures(tuple(found), tuple(map(file_hash, found)), tuple(found.values()))
    _refuse_test_pictures(pictures, data)
    _refuse_unreadable(pictures)
    return pictures


def _pictures_of(root: Path, class_names: tuple[str, ...]) -> dict[Path, int | None]:
    """Map each picture to its class; without class folders, each one in the folder to None."""
    with faults_as_errors():
        labelled: dict[Path, int | None] = {
            file: label
            for domain in read_layout(root, class_names).domains
            for file, label in zip(domain.files, domain.labels, strict=True)
        }
        return labelled or dict.fromkeys(pictures_in(root))


def _refuse_test_pictures(pictures: RealPictures, data: str) -> None:
    """Stop when a picture to learn from is also one to be measured on (the same file content)."""
    sizes = {file.stat().st_size for file in pictures.files}  # spares hashing of most test pictures
    known = dict(zip(pictures.hashes, pictures.files, strict=True))
    for file in sorted(Path(data).rglob("*")) if data else ():
        if file.is_file() and file.stat().st_size in sizes and file_hash(file) in known:
            raise ConfigError(
                f"{known[file_hash(file)].name} is also a test picture, {file}",
                where="--images",
                hint="keep the pictures of --images and --data apart",
            )


def _refuse_unreadable(pictures: RealPictures) -> None:
    with faults_as_errors():
        for file in pictures.files:
            fault = fault_of(file)
            if fault:
                where = f"--images, {fault.where}"
                raise ConfigError(fault.what, where=where, hint=fault.hint) from fault
