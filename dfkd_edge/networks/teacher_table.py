"""The teachers that people ask for, from a table that was counted beforehand: no torch here.

Building an architecture to count it takes a second each. `examples/measurements/teachers.py` wrote
the table; what the installed open_clip does not have is left out of it when it is read.
"""

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path

from dfkd_edge.config.settings import MINI
from dfkd_edge.networks.licences import licence_of
from dfkd_edge.networks.names import open_clip_folder

TABLE = Path(__file__).parent / "teachers.json"
FAMILIES = (
    ("MobileCLIP2", r"^MobileCLIP2"),
    ("MobileCLIP", r"^MobileCLIP-"),
    ("TinyCLIP", r"^TinyCLIP"),
    ("SigLIP2", r"^ViT.*-SigLIP2"),
    ("SigLIP", r"^ViT.*-SigLIP"),
    ("OpenAI", r" openai$"),
    ("MetaCLIP", r" metaclip"),
    ("DFN", r" dfn\d"),
    ("DataComp", r" (datacomp|commonpool)_"),
    ("LAION", r" laion"),
)
"""Makers and what tells them in "name tag"; the first that fits holds."""
CARDS = ((8, 120e6), (16, 450e6), (24, 900e6), (48, 2.6e9))
"""GB of a card, and parameters of the largest image tower that it distils from. ViT-B/32 (88 M) was
counted within 8 GB and ViT-L/14 (304 M) within 16; the others follow from their weights (ours)."""
RECOMMENDED = {
    (MINI, ""): "start here: inside the package, no download",
    ("ViT-B-32", "laion2b_s34b_b79k"): "the teacher of --preset clip-b32",
    ("ViT-B-16", "datacomp_xl_s13b_b90k"): "finer patches than B/32, four times its work",
    ("ViT-L-14", "laion2b_s32b_b82k"): "the teacher of --preset clip-l14",
}
"""What a newcomer may take without a look at licences, and why."""


@dataclass(frozen=True, slots=True)
class KnownTeacher:
    """A teacher of the table."""

    name: str  # For `--teacher`
    tag: str  # For `--pretrained`; empty for the embedded one
    num_image_parameters: int  # Of the image tower, which a student replaces
    num_parameters: int  # With the text tower
    image_size_px: int  # Side of its input
    activation: str  # `gelu` or `quickgelu`, as the tag was trained

    @property
    def family(self) -> str:
        """Who made it."""
        return "dfkd-edge" if self.name == MINI else family_of(self.name, self.tag)

    @property
    def licence(self) -> str:
        """Its terms, as far as known."""
        return licence_of(self.name, self.tag)

    @property
    def card_gb(self) -> int | None:
        """Smallest card of the usual ones that distils from it; None where none of them does."""
        fits = (gb for gb, largest in CARDS if self.num_image_parameters <= largest)
        return next(fits, None)

    @property
    def advice(self) -> str:
        """Why a newcomer may take it; empty for most."""
        return RECOMMENDED.get((self.name, self.tag), "")


def family_of(name: str, tag: str) -> str:
    """Tell who made a teacher of open_clip; empty for families that the table leaves out."""
    found = (family for family, sign in FAMILIES if re.search(sign, f"{name} {tag}"))
    return next(found, "")


@functools.cache
def known_teachers() -> tuple[KnownTeacher, ...]:
    """Teachers of the table that the installed open_clip has, the smallest image tower first."""
    rows = [KnownTeacher(**row) for row in json.loads(TABLE.read_text(encoding="utf-8"))]
    folder = open_clip_folder()
    names = {path.stem for path in (folder / "model_configs").glob("*.json")}
    listing = folder / "pretrained.py"
    tags = set(re.findall(r"\w+", listing.read_text(encoding="utf-8")) if listing.exists() else ())
    there = (row for row in rows if row.name == MINI or (row.name in names and row.tag in tags))
    return tuple(sorted(there, key=lambda row: (row.num_image_parameters, row.name)))
