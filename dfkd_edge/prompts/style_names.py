"""Names of styles: real words from a reviewed list, in the place of learnt vectors.

A learnt style is a vector, which a text-to-image pipeline cannot read and a person neither. The
token nearest to it may be anything that a web-scale vocabulary holds: half a word, a class, an
insult. So each style is named after that entry of the list whose sentence lies nearest to its own
in the teacher's text space.

Shape suffixes: S styles, L listed names, D embedding width.
"""

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.prompts.style_slot import STYLE_TEMPLATE, StyledPrompts

STYLE_NAMES = (
    # paint and print
    *("watercolor", "oil painting", "acrylic painting", "gouache", "pastel", "fresco", "mural"),
    *("etching", "engraving", "woodcut", "linocut", "lithograph", "screen print", "risograph"),
    # drawing
    *("charcoal", "pencil sketch", "ink drawing", "ink wash", "crayon", "chalk", "doodle"),
    *("line art", "technical drawing", "blueprint", "silhouette", "cartoon", "comic book"),
    *("anime", "storybook illustration", "clip art", "flat design", "pixel art", "infographic"),
    # made by hand or by a computer
    *("collage", "mosaic", "stained glass", "tapestry", "embroidery", "origami", "paper cutout"),
    *("claymation", "wood carving", "marble sculpture", "bronze sculpture", "low poly"),
    *("computer rendering", "cel shaded", "isometric", "airbrush"),
    # photography
    *("studio photograph", "film photograph", "instant photograph", "product photograph"),
    *("documentary photograph", "snapshot", "macro photograph", "aerial photograph"),
    *("black and white photograph", "sepia", "infrared photograph", "double exposure"),
    *("long exposure", "wide angle", "fisheye", "soft focus", "surveillance footage"),
    # movements and ages
    *("impressionist", "expressionist", "cubist", "surrealist", "pointillist", "baroque"),
    *("renaissance", "rococo", "art deco", "art nouveau", "pop art", "folk art", "minimalist"),
    *("abstract", "realist", "psychedelic", "medieval", "vintage", "retro", "futuristic"),
    # light and weather
    *("sunlit", "moonlit", "backlit", "candlelit", "neon", "twilight", "overcast", "foggy"),
    *("rainy", "snowy", "stormy", "underwater", "low light", "high contrast"),
    # colour and surface
    *("monochrome", "vivid", "muted", "faded", "glossy", "matte", "grainy", "blurry"),
    *("metallic", "wooden", "knitted", "dusty", "iridescent", "translucent"),
)
"""Media, techniques, movements, light, weather and surfaces, chosen by hand (ours): each reads well
in "a dog, ... style", and none names a thing, a person, a people or a place. Unlike the list
`neutral` it names domains of PACS, OfficeHome and DomainNet: say so beside a figure on those that
rests on `--synthesis diffusion`, the one method that reads these names."""


def listed_names(names: Sequence[str], class_names: Sequence[str]) -> list[str]:
    """Leave out names that share a word with a class: they would draw it into every picture."""
    taken = {word for name in class_names for word in _words(name)}
    return [name for name in names if not taken & _words(name)] or list(names)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


@torch.no_grad()
def name_styles(prompts: StyledPrompts, style_SW: Tensor, names: Sequence[str]) -> list[str]:
    """Name each style after the nearest entry of a list.

    Entries are given away in the order of nearness, each as rarely as the numbers allow, so that
    prompts of different styles differ. What all sentences share is taken off before: the texts of a
    CLIP lie in a narrow cone.
    """
    teacher = prompts.teacher
    name_LD = teacher.embed_texts([STYLE_TEMPLATE.format(name) for name in names])
    centre_D = name_LD.mean(0)
    style_SD = F.normalize(prompts.embed_styles(style_SW) - centre_D, dim=1)
    near_SL = (style_SD @ F.normalize(name_LD - centre_D, dim=1).T).cpu()
    left = [-(-len(style_SW) // len(names))] * len(names)  # uses of each, rounded up
    found: dict[int, str] = {}
    for place in near_SL.flatten().argsort(descending=True, stable=True).tolist():
        style, entry = divmod(place, len(names))
        if style not in found and left[entry]:
            found[style] = names[entry]
            left[entry] -= 1
    return [found[style] for style in range(len(style_SW))]
