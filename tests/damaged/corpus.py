"""The inputs that are kept: one archive a target, each input by the hash of its content."""

import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
EPOCH = (2026, 1, 1, 0, 0, 0)  # Equal inputs give equal archives


def kept(target: str) -> dict[str, bytes]:
    """Read the inputs of a target by their names; none where none is kept."""
    path = FOLDER / f"{target}.zip"
    if not path.is_file():
        return {}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def keep(target: str, inputs: Iterable[bytes]) -> None:
    """Write the inputs of a target in place of those that are there."""
    FOLDER.mkdir(exist_ok=True)
    named = {hashlib.sha256(content).hexdigest()[:16]: content for content in inputs}
    with zipfile.ZipFile(FOLDER / f"{target}.zip", "w") as archive:
        for name, content in sorted(named.items()):
            entry = zipfile.ZipInfo(name, EPOCH)
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED, 9)
