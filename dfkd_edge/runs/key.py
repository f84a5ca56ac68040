"""What makes a run this run: its settings, its classes, and the local files that it starts from.

A name of the hub stands for its content. Files of this package change with its version, and the
user's may be replaced under the same path: what was made with the old ones must not pass for new.
"""

import functools
from pathlib import Path

from dfkd_edge import assets
from dfkd_edge.config.settings import MINI, DistillationConfig, PromptConfig, TeacherConfig
from dfkd_edge.files import content_hash, file_hash


@functools.lru_cache
def _hash_once(path: Path, _size_bytes: int, _modified_ns: int) -> str:  # both key the cache
    return file_hash(path)


def content_of(place: str | Path) -> str:
    """Hash a file, or what lies in a folder besides hidden files; empty where there is neither.

    A hub client keeps times of download in hidden folders.
    """
    root = Path(place)
    if not str(place) or not root.exists():
        return ""
    inside = sorted(root.rglob("*")) if root.is_dir() else [root]
    found = []
    for path in inside:
        name = path.relative_to(root)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            status = path.stat()
            found.append((name.as_posix(), _hash_once(path, status.st_size, status.st_mtime_ns)))
    return content_hash(*found)


def teacher_content(config: TeacherConfig) -> str:
    """Hash the local files of a teacher."""
    if config.name == MINI:
        return content_of(assets.TEACHER)
    weights = config.pretrained if Path(config.pretrained).is_file() else ""
    return content_of(config.name.removeprefix("local-dir:")) + content_of(weights)


def words_content(config: PromptConfig) -> str:
    """Hash a text file of style words."""
    return content_of(config.style_words) if config.method == "mix" else ""


def student_content(config: DistillationConfig) -> str:
    """Hash the start weights, where they are ours."""
    starts_from_ours = config.student == MINI and config.student_init == "pretrained"
    return content_of(assets.START_WEIGHTS) if starts_from_ours else ""
