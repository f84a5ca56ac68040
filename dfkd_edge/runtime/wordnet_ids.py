"""What the folders of ImageNet are called: WordNet ids, with names in a file beside them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from dfkd_edge.runtime.faults import UsageFault
from dfkd_edge.runtime.safe_files import reading

# lines of a WordNet id and its names: `n02084071 dog, domestic dog`
MAPPING_FILES = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")
WORDNET_ID = re.compile(r"n\d{8}")
MAX_MAPPING_BYTES = 16 << 20


def wordnet_names(root: Path) -> dict[str, list[str]]:
    """Read the names of each WordNet id from the mapping file that ImageNet comes with.

    Raises:
        UsageFault: a mapping file cannot be read.
    """
    names: dict[str, list[str]] = {}
    for file in (root / name for name in MAPPING_FILES):
        if file.is_file():
            for line in _text(file).splitlines():
                wnid, _, rest = line.replace("\t", " ").partition(" ")
                names[wnid] = rest.split(",")
    index = root / "imagenet_class_index.json"
    if index.is_file():
        try:
            pairs = json.loads(_text(index)).values()
            names.update({str(wnid): [str(name)] for wnid, name in pairs})
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            what = "is no list of WordNet ids and names"
            raise UsageFault(what, str(index), "repair or remove it") from error
    return names


def _text(file: Path) -> str:
    try:
        with reading(file) as stream:
            return stream.read(MAX_MAPPING_BYTES).decode("utf-8", errors="replace")
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise UsageFault(what, str(file), "repair or remove it") from error
