"""Write class lists and their held-out icons as folders for `distill --data`.

The icons come from styles that no training step saw. Each is laid on several backgrounds, at
several sizes; the teacher's accuracy on the same pictures is the yardstick.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path

import numpy as np
import torch
from pictures import NEW_CATEGORIES
from PIL import Image
from training_batches import as_rgba

from dfkd_edge.networks.views import geometric_view
from dfkd_edge.synthesis.retrieval import on_background

LISTS = {
    "pets": ["dog", "cat", "rabbit", "hamster", "mouse", "parrot", "fish", "turtle"],
    "kitchen": [
        *("spoon", "teapot", "kitchen knife", "fork and knife", "beer mug", "wine glass"),
        *("cocktail glass", "baby bottle", "honey pot", "hot beverage"),
    ],
    "animals": [
        *("horse", "cow", "pig", "goat", "chicken", "duck", "owl", "penguin", "tiger", "elephant"),
        *("monkey", "camel", "crocodile", "snail", "ant", "koala", "bat", "deer", "turkey", "frog"),
    ],
    "things": [
        *("strawberry", "watermelon", "lemon", "peach", "pear", "mushroom", "bread", "pizza"),
        *("doughnut", "tomato", "bus", "bicycle", "airplane", "tractor", "ambulance", "sailboat"),
        *("rocket", "taxi", "anchor", "guitar"),
    ],
    "mixed": [
        *("horse", "pig", "duck", "owl", "penguin", "tiger", "elephant", "camel", "snail", "frog"),
        *NEW_CATEGORIES[:6],
        *("unicorn", "dragon", "ghost", "robot"),
    ],
    "unseen": list(NEW_CATEGORIES),
    "rare": [
        *("beluga", "narwhal", "macaw", "goldfish", "rubber duck", "coffee grinder"),
        *("espresso machine", "moka pot", "pepper mill", "milk jug", "forceps", "crutches"),
        *("iceberg", "submarine", "wheelbarrow", "washing machine", "pomegranate", "lighter"),
        *("lawn mower", "signpost"),
    ],
}
NUM_VARIANTS = 6
STYLES = ("openmoji", "streamline-emojis")
"""Held-out sets that were drawn anew; emojione-monotone traces the drawings of emojione."""
PEOPLE = re.compile(
    r"\b(fac(e|es|epalming)|m[ae]n|mans|wom[ae]n|womans|boy|girl|baby|person|family|kiss|couple|heart|hands?|fist|"
    r"index|thumbs|moon|monkey|poo|busts?|eyes?|no|old|with|e|t)\b"
)
"""Names of persons, faces and signs, which differ in a few strokes alone."""


def large_list(labels: list[dict[str, str]], num_classes: int) -> list[str]:
    """Draw so many names of things that both styles show; the longer list holds the shorter."""
    drawn = ({row["name"].lower() for row in labels if row["source"] == s} for s in STYLES)
    names = sorted(name for name in set.intersection(*drawn) if not PEOPLE.search(name))
    return random.Random(0).sample(names, len(names))[:num_classes]


def main() -> None:
    """Write OUT/<list>.txt and OUT/<list>/<class>/*.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--large", type=int, nargs="*", default=[80, 200], help="names")
    args = parser.parse_args()
    labels = json.loads((args.work / "heldout_icons.json").read_text(encoding="utf-8"))
    rgba = np.load(args.work / "heldout_icons.npy", mmap_mode="r")
    generator = torch.Generator().manual_seed(0)
    large = {f"icons{num}": large_list(labels, num) for num in args.large}
    for name, classes in {**LISTS, **large}.items():
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"{name}.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
        count = 0
        for label in classes:
            wanted = {label, f"{label} face"}
            rows = [
                i
                for i, row in enumerate(labels)
                if row["source"] in STYLES and row["name"].lower() in wanted
            ]
            folder = args.out / name / label
            folder.mkdir(parents=True, exist_ok=True)
            image = on_background(as_rgba(np.repeat(rgba[rows], NUM_VARIANTS, 0)), generator)
            view = geometric_view(image, image.shape[-1], generator, min_scale=0.8)
            for number, pixels in enumerate((view * 255).byte().permute(0, 2, 3, 1).numpy()):
                Image.fromarray(pixels).save(folder / f"{number:03d}.png")
            count += len(rows)
        print(f"{name}: {len(classes)} classes, {count} icons, {count * NUM_VARIANTS} pictures")


if __name__ == "__main__":
    main()
