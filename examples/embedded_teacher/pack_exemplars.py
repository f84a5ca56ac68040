"""Pack icons into the decoder's memory: drawings that synthesis starts from, and their names.

Beside the sheets lies what the teacher sees in each drawing and reads in each name: a run looks at
none of them.

Only icon sets that trained the teacher, so that the held-out ones still measure; only licences that
let icons be passed on in a package under Apache-2.0; of those, the drawings that the teacher knows.

Shape suffixes: N icons, M distinct names, D embedding width, P side in pixels, C = 4 channels.
"""

from __future__ import annotations

import argparse
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from pictures import TRAINED_STYLES, names_new_category
from PIL import Image

from dfkd_edge.artifacts import save_tensors
from dfkd_edge.assets import EXEMPLARS, TEACHER
from dfkd_edge.class_names import parse_class_names
from dfkd_edge.config.settings import TeacherConfig
from dfkd_edge.drawings.memory import (
    CUT_TOGETHER,
    EMBEDDINGS,
    MAX_RANK,
    NAME_TEXT,
    distinct_names,
    read_sheets,
)
from dfkd_edge.files import atomic_write
from dfkd_edge.networks.teacher import Teacher, load_teacher
from dfkd_edge.runs.key import content_of

STYLES = tuple(style for style in TRAINED_STYLES if style != "emojione-v1")
"""emojione-v1 is CC BY-SA."""
SIDE_PX, NUM_COLUMNS = 64, 32
NUM_COLOURS = 16
"""Of a sheet's tile, transparency included; one-colour sets need no more than SHADES."""
NUM_SHADES = 4
ONE_COLOUR = (
    *("fluent-emoji-high-contrast", "game-icons", "healthicons", "icon-park", "lucide"),
    *("lucide-lab", "maki", "temaki", "mdi", "ph", "tabler", "fa6-solid"),
)
MAX_OF_A_NAME = 2
"""Drawings of one name in one set: more are the same in other strokes."""
UNWANTED = frozenset(
    (
        *("medium", "dark", "light", "oclock", "thirty", "keycap", "button", "arrow", "arrows"),
        *("flag", "backhand", "man", "woman", "circled", "mark", "sign", "symbol"),
    )
)
"""Words of compound names that tell tones of skin, times of day, letters and controls."""
BRANDS = frozenset(("google", "firebase", "ipod", "iphone"))
BRANDED_APPLES = ("mdi", "icon-park")
"""Sets whose apple is a maker of computers: trademarks are not drawings of things."""


@torch.inference_mode()
def embed_icons(work: Path, teacher: Teacher) -> np.ndarray:
    """Teacher's embeddings of all icons on white, kept in icon_embeddings.npy, float32 [N, D]."""
    path = work / "icon_embeddings.npy"
    if not path.exists():
        icons = np.load(work / "icons.npy", mmap_mode="r")
        parts = []
        for start in range(0, len(icons), 256):
            rgba = torch.from_numpy(icons[start : start + 256].astype(np.float32) / 255)
            rgba = rgba.permute(0, 3, 1, 2)
            image = rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]
            parts.append(teacher.embed_images(image))
        np.save(path, torch.cat(parts).numpy())
    return np.load(path)


def names_a_thing(name: str, style: str, nouns: frozenset[str]) -> bool:
    """Whether a name may come into the memory; sets made for user interfaces must name a noun."""
    words = name.split()
    if name in BRANDS or (name == "apple" and style in BRANDED_APPLES):
        return False
    if names_new_category(name) or len(words) > 3 or (len(words) > 1 and UNWANTED & set(words)):
        return False
    return style not in ONE_COLOUR or name in nouns


@torch.inference_mode()
def known_icons(
    work: Path, names: list[str], styles: list[str], nouns: frozenset[str], teacher: Teacher
) -> list[int]:
    """Rows of the icons whose own name is among the MAX_RANK that the teacher finds nearest."""
    count: Counter[tuple[str, str]] = Counter()
    allowed = []
    for row, (name, style) in enumerate(zip(names, styles, strict=True)):
        count[style, name] += 1
        if style in STYLES and names_a_thing(name, style, nouns):
            allowed += [row] if count[style, name] <= MAX_OF_A_NAME else []
    distinct = sorted({names[row] for row in allowed})
    index = {name: number for number, name in enumerate(distinct)}
    texts = [NAME_TEXT.format(name) for name in distinct]
    text_MD = teacher.embed_texts(texts)
    icon_ND = torch.from_numpy(embed_icons(work, teacher))
    known = []
    for start in range(0, len(allowed), 512):
        rows = allowed[start : start + 512]
        similarity = icon_ND[rows] @ text_MD.T
        own = similarity.gather(1, torch.tensor([[index[names[row]]] for row in rows]))
        rank = (similarity > own).sum(1)
        known += [row for row, r in zip(rows, rank.tolist(), strict=True) if r < MAX_RANK]
    return known


def reduced(rgba_PPC: np.ndarray, style: str) -> np.ndarray:
    """Shrink one icon and reduce its colours, uint8 [P, P, C]."""
    small = Image.fromarray(rgba_PPC).resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
    num = NUM_SHADES if style in ONE_COLOUR else NUM_COLOURS
    return np.asarray(small.quantize(num, method=Image.Quantize.FASTOCTREE).convert("RGBA"))


def write_sheet(path: Path, tiles: list[np.ndarray]) -> None:
    """Write drawings in rows as a lossless WebP."""
    blank = np.zeros_like(tiles[0])
    tiles = tiles + [blank] * (-len(tiles) % NUM_COLUMNS)
    rows = [
        np.concatenate(tiles[i : i + NUM_COLUMNS], 1) for i in range(0, len(tiles), NUM_COLUMNS)
    ]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(rows)).save(buffer, "WEBP", lossless=True, quality=100, method=6)
    atomic_write(path, buffer.getvalue())
    print(f"{path.name}: {len(buffer.getvalue()) / 1e6:.2f} MB", flush=True)


def stretched(unit_MD: torch.Tensor) -> np.ndarray:
    """Round unit rows to int8, each stretched to its full range."""
    longest_M1 = unit_MD.abs().amax(1, keepdim=True)
    rounded: np.ndarray = (unit_MD / longest_M1 * 127).round().to(torch.int8).numpy()
    return rounded


@torch.inference_mode()
def write_embeddings(teacher: Teacher) -> None:
    """Embed the drawings as they are stored, on white, and their names."""
    sheets = read_sheets()
    texts = [NAME_TEXT.format(name) for name in distinct_names(sheets)]
    name_VD = teacher.embed_texts(texts)
    shown = []
    for sheet in sheets:
        for rgba_MCPP in sheet.drawings(range(len(sheet.names))).split(CUT_TOGETHER):
            rgba = rgba_MCPP.float() / 255
            shown.append(teacher.embed_images(rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]))
    tensors = {"names": stretched(name_VD), "drawings": stretched(torch.cat(shown))}
    save_tensors(EXEMPLARS / EMBEDDINGS, tensors, {"teacher": content_of(TEACHER)})


def main() -> None:
    """Choose the icons, write a sheet a set, and the embeddings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--nouns", type=Path, required=True, help="a noun a line")
    args = parser.parse_args()
    nouns = frozenset(args.nouns.read_text(encoding="utf-8").lower().split("\n"))
    labels = json.loads((args.work / "icons.json").read_text(encoding="utf-8"))
    names = [label["name"].lower() for label in labels]
    styles = [label["source"] for label in labels]
    teacher = load_teacher(TeacherConfig(), parse_class_names("thing\nanimal", "none"))
    icons = np.load(args.work / "icons.npy", mmap_mode="r")
    known = known_icons(args.work, names, styles, nouns, teacher)
    names_of: dict[str, list[str]] = {}
    for style in STYLES:
        rows = [row for row in known if styles[row] == style]
        write_sheet(EXEMPLARS / f"{style}.webp", [reduced(icons[row], style) for row in rows])
        names_of[style] = [names[row] for row in rows]
    index = {"side_px": SIDE_PX, "num_columns": NUM_COLUMNS, "names": names_of}
    text = json.dumps(index, separators=(",", ":")) + "\n"
    atomic_write(EXEMPLARS / "exemplars.json", text)
    write_embeddings(teacher)
    print(f"{len(known)} drawings, {len({names[row] for row in known})} names")


if __name__ == "__main__":
    main()
