"""Gather the named pictures that the embedded models are trained on.

Photos come from parquet files (columns ``image``, ``name``, ``source``); icons are rendered from
npm's ``@iconify-json`` packages. Both become memory-mapped ``uint8`` arrays, so that every later
step reads the same bytes.

Shape suffixes: N pictures, P side in pixels.
"""

from __future__ import annotations

import argparse
import io
import json
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

SIDE_PX = 128
"""Side at which every picture is stored; the towers train at 96 to 128 px."""

HELD_OUT_STYLES = ("openmoji", "streamline-emojis", "emojione-monotone")
"""Whole icon styles that no training step sees; they measure shape beyond the drawn style."""

NEW_CATEGORIES = (
    *("rhinoceros", "octopus", "dolphin", "sunflower", "cactus", "helicopter", "scissors"),
    *("snowman", "skateboard", "crown", "unicorn", "dragon", "ghost", "robot", "palm tree"),
    *("trophy", "kite", "grapes", "cherries", "squid"),
)
"""Categories that occur in no training name: every icon named after one is left out."""

TRAINED_STYLES = (
    *("noto", "noto-v1", "twemoji", "fluent-emoji-flat", "fluent-emoji", "emojione"),
    *("emojione-v1", "fxemoji", "flat-color-icons", "fluent-emoji-high-contrast", "game-icons"),
    *("healthicons", "icon-park", "lucide", "lucide-lab", "maki", "temaki", "mdi", "ph", "tabler"),
    *("fa6-solid", "meteocons"),
)

_VARIANT = re.compile(
    r"skin-tone|-(off|plus|minus|check|alert|cancel|negative|variant|11|thin|bold)\b"
)
_NOISE_WORDS = frozenset(
    [
        "outline",
        "outlined",
        "filled",
        "fill",
        "light",
        "duotone",
        "regular",
        "solid",
        "line",
        "alt",
        "alternate",
        "rounded",
        "sharp",
    ]
)


def readable_name(icon_id: str) -> str:
    """Turn an icon identifier such as ``dog-face-2`` into ``dog face``."""
    words = re.split(r"[-_\s]+", icon_id)
    noise = _NOISE_WORDS - ({"light"} if {"traffic", "bulb"} & set(words) else set())
    words = [w for w in words if w not in noise]
    return " ".join(w for w in words if not w.isdigit()).strip()


def names_new_category(name: str) -> bool:
    """Whether a name contains one of NEW_CATEGORIES, in singular or plural."""
    padded = f" {name.lower()} "
    stems = {c.removesuffix("s") if c != "scissors" else c for c in NEW_CATEGORIES}
    stems |= {"cherry", "rhino", "cacti"}
    return any(re.search(rf"\b{re.escape(stem)}(s|es)?\b", padded) for stem in stems)


def list_icons(packages: Path, style: str) -> list[tuple[str, str, str]]:
    """List (style, name, SVG text) of one icon package, without skin tones and UI variants."""
    icons = json.loads((packages / style / "icons.json").read_text(encoding="utf-8"))
    default_w, default_h = icons.get("width", 16), icons.get("height", 16)
    found = []
    for icon_id, icon in sorted(icons["icons"].items()):
        if _VARIANT.search(icon_id) or icon.get("hidden"):
            continue
        width, height = icon.get("width", default_w), icon.get("height", default_h)
        box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{box}" width="{SIDE_PX}" height="{SIDE_PX}">{icon["body"]}</svg>'
        )
        found.append((style, readable_name(icon_id), svg))
    return found


def render(svg: str) -> np.ndarray | None:
    """Render one SVG to uint8 RGBA [P, P, 4]; None when it cannot be drawn or is empty."""
    import resvg_py

    try:
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIDE_PX, height=SIDE_PX))
    except (ValueError, RuntimeError):
        return None
    with Image.open(io.BytesIO(png)) as picture:
        rgba = np.asarray(picture.convert("RGBA").resize((SIDE_PX, SIDE_PX)))
    return rgba if (rgba[..., 3] > 32).mean() > 0.02 else None


def cropped(source: Path | io.BytesIO, side_px: int) -> Image.Image:
    """Open a picture and resize its middle square."""
    with Image.open(source) as picture:
        square = picture.convert("RGB")
        side = min(square.size)
        left, top = (square.width - side) // 2, (square.height - side) // 2
        square = square.crop((left, top, left + side, top + side))
        return square.resize((side_px, side_px), Image.Resampling.BICUBIC)


def _photo(jpeg: bytes) -> np.ndarray:
    return np.asarray(cropped(io.BytesIO(jpeg), SIDE_PX))


def gather_photos(folder: Path, work: Path) -> None:
    """Decode every parquet file into photos.npy [N, P, P, 3] and photos.json."""
    import pyarrow.parquet as pq

    rows = [
        row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]
    pixels = np.lib.format.open_memmap(
        work / "photos.npy", "w+", np.uint8, (len(rows), SIDE_PX, SIDE_PX, 3)
    )
    with ProcessPoolExecutor() as pool:
        for index, photo in enumerate(pool.map(_photo, (r["image"] for r in rows), chunksize=256)):
            pixels[index] = photo
    pixels.flush()
    labels = [{"name": str(r["name"]), "source": str(r["source"])} for r in rows]
    (work / "photos.json").write_text(json.dumps(labels), encoding="utf-8")


def gather_icons(packages: Path, styles: tuple[str, ...], work: Path, stem: str) -> None:
    """Render icons of the given styles into STEM.npy [N, P, P, 4] and STEM.json."""
    listed = [icon for style in styles for icon in list_icons(packages, style)]
    spaced = {name.replace(" ", ""): name for style, name, _ in listed if style != "fxemoji"}
    kept: list[tuple[np.ndarray, dict[str, str]]] = []
    with ProcessPoolExecutor() as pool:
        rendered = pool.map(render, (svg for _, _, svg in listed), chunksize=64)
        for (style, name, _), rgba in zip(listed, rendered, strict=True):
            if style == "fxemoji":
                name = spaced.get(name, "")
            if rgba is not None and len(name) > 2:
                kept.append((rgba, {"name": name, "source": style}))
    np.save(work / f"{stem}.npy", np.stack([rgba for rgba, _ in kept]))
    (work / f"{stem}.json").write_text(json.dumps([label for _, label in kept]), encoding="utf-8")


def main() -> None:
    """Write photos, training icons and held-out icons into the work folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder of parquet files")
    parser.add_argument("--icons", type=Path, required=True, help="node_modules/@iconify-json")
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    gather_icons(args.icons, HELD_OUT_STYLES, args.work, "heldout_icons")
    gather_icons(args.icons, TRAINED_STYLES, args.work, "icons")
    gather_photos(args.photos, args.work)


if __name__ == "__main__":
    main()
