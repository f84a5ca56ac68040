"""Under which terms the models of others come: a teacher's terms reach the student that it taught.

A table of the models that open_clip, the presets and the README name, and what a folder of this
machine says of itself. A hint for the reader of a plan, no legal advice: terms change, and the
maker's own page is the last word. No heavy library here.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from dfkd_edge.config.settings import MINI, PIXELS, PipelineConfig

OWN = "Apache-2.0, dfkd-edge's own"
UNKNOWN = "unknown, ask its maker"
NO_WEIGHTS = "none, it has no weights"
APPLE = "Apple Machine Learning Research Model licence: research only"
NON_COMMERCIAL = "CC BY-NC 4.0: no commercial use"
STABILITY = "Stability AI's community licence: commercial use on terms, see stability.ai/license"
OPEN_RAIL = "OpenRAIL++: not for the uses that its attachment A forbids"


@dataclass(frozen=True, slots=True)
class KnownLicence:
    """The terms of a family of models."""

    pattern: str  # Found in "model tag" of open_clip, or in "owner/name" of the hub; any case
    terms: str
    owners: tuple[str, ...]  # On the hub; a copy of anybody else's may be trained further
    source: str  # Where the terms were read


KNOWN = (
    KnownLicence(
        "mobileclip",
        APPLE,
        ("apple", "timm"),
        "huggingface.co/apple/MobileCLIP2-S3/blob/main/LICENSE, apple/MobileCLIP-S2",
    ),
    KnownLicence(  # until February 2025 the cards named the Apple Sample Code Licence
        r"\bdfn\d", APPLE, ("apple",), "huggingface.co/apple/DFN2B-CLIP-ViT-B-16/discussions/1"
    ),
    KnownLicence(  # timm's copies of the image towers say Apache-2.0, their makers do not
        "metaclip",
        NON_COMMERCIAL,
        ("facebook", "timm"),
        "github.com/facebookresearch/MetaCLIP LICENSE, huggingface.co/facebook/metaclip-b16-400m",
    ),
    KnownLicence(
        "nllb-(clip|siglip)",
        NON_COMMERCIAL,
        ("visheratin",),
        "huggingface.co/visheratin/nllb-clip-base",
    ),
    KnownLicence(
        "siglip",
        "Apache-2.0",
        ("google", "timm"),
        "huggingface.co/google/siglip2-so400m-patch16-256, timm/ViT-B-16-SigLIP",
    ),
    KnownLicence(
        r"clipa\b",
        "Apache-2.0",
        ("ucsc-vlaa",),
        "huggingface.co/UCSC-VLAA/ViT-L-14-CLIPA-datacomp1B",
    ),
    KnownLicence(
        r"\bpe-core",
        "Apache-2.0",
        ("facebook", "timm"),
        "huggingface.co/facebook/pe_core_base_patch16_224_timm",
    ),
    KnownLicence("vitamin", "MIT", ("jienengchen",), "huggingface.co/jienengchen/ViTamin-XL-384px"),
    KnownLicence(
        r"\beva0[12]",
        "MIT",
        ("timm",),
        "huggingface.co/timm/eva02_base_patch16_clip_224.merged2b_s8b_b131k",
    ),
    KnownLicence(
        "tinyclip", "MIT", ("wkcn",), "huggingface.co/wkcn/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M"
    ),
    KnownLicence(r" openai$|/clip-", "MIT", ("openai",), "github.com/openai/CLIP LICENSE"),
    KnownLicence(
        "laion|datacomp|commonpool",
        "MIT",
        ("laion",),
        "huggingface.co/laion/CLIP-ViT-B-32-laion2B-s34B-b79K, CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
    ),
    KnownLicence("amused-", OPEN_RAIL, ("amused",), "huggingface.co/amused/amused-256"),
    KnownLicence("-turbo", STABILITY, ("stabilityai",), "huggingface.co/stabilityai/sd-turbo"),
    KnownLicence(
        "stable-diffusion-xl-",
        OPEN_RAIL,
        ("stabilityai",),
        "huggingface.co/spaces/TIGER-Lab/GenAI-Arena, generation_model_info.json",
    ),
    KnownLicence(
        "sdxl-lightning", OPEN_RAIL, ("bytedance",), "huggingface.co/ByteDance/SDXL-Lightning"
    ),
    KnownLicence(
        "lcm_dreamshaper",
        "MIT",
        ("simianluo",),
        "huggingface.co/spaces/TIGER-Lab/GenAI-Arena, generation_model_info.json",
    ),
)
"""The first one that fits holds."""
_FRONT_MATTER = re.compile(r"\A\ufeff?---\s*\n(.*?)\n---\s*\n", re.DOTALL)
LICENCE_FILES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENSE.TXT", "License.txt", "LICENCE")
MAX_LETTERS = 80  # Of a licence's first line, which may be its whole text


def licence_of(model: str, tag: str = "") -> str:
    """Name the terms of a teacher, a decoder or a pipeline.

    Args:
        model: `mini`, `pixels`, a name of open_clip, `hf-hub:owner/name`, `owner/name[/folder]`, or
            a folder or file of this machine.
        tag: of open_clip's pretrained weights.
    """
    if model in (MINI, PIXELS):
        return OWN if model == MINI else NO_WEIGHTS
    path = Path(model)
    if path.exists():
        return _local_licence(path) or UNKNOWN
    name = model.removeprefix("hf-hub:").lower()
    owner = name.split("/")[0] if "/" in name else ""
    for known in KNOWN:
        is_of_maker = not owner or owner in known.owners
        if is_of_maker and re.search(known.pattern, f"{name} {tag.lower()}".strip()):
            return known.terms
    return UNKNOWN


@dataclass(frozen=True, slots=True)
class ModelLicence:
    """A model that a run learns from, and its terms."""

    role: str  # teacher, decoder or pipeline
    model: str
    terms: str

    def __str__(self) -> str:
        """Write it for a person."""
        return f"{self.role} {self.model}: {self.terms}"


def licences_of(config: PipelineConfig) -> tuple[ModelLicence, ...]:
    """Name the terms of a run's teacher, and of the decoder or pipeline that makes its images."""
    teacher, synthesis = config.teacher, config.synthesis
    role, name = "decoder", synthesis.decoder
    if synthesis.method == "diffusion":
        role, name = "pipeline", synthesis.pipeline
    tag = "" if Path(teacher.pretrained).is_file() else teacher.pretrained
    terms = licence_of(teacher.name, tag)
    if teacher.pretrained and not tag:  # weights from a file have whatever terms they have
        terms = UNKNOWN
    full_name = f"{teacher.name} {teacher.pretrained}".strip()
    return (
        ModelLicence("teacher", full_name, terms),
        ModelLicence(role, name, licence_of(name)),
    )


def _local_licence(path: Path) -> str:
    """Read what a folder says of itself, or the pipeline that it is a part of; empty if nothing.

    What lies beside a single file, or above a folder, may be the licence of anything else.
    """
    if not path.is_dir():
        return ""
    folders = [path]
    if (path.resolve().parent / "model_index.json").is_file():
        folders.append(path.resolve().parent)
    for folder in folders:
        if terms := _card_licence(folder / "README.md") or _file_licence(folder):
            return terms
    return ""


def _card_licence(card: Path) -> str:
    """Read `license` of a model card's front matter, or its name where that is "other"."""
    front = _FRONT_MATTER.match(_text(card))
    if not front:
        return ""
    values: dict[str, str] = dict(
        re.findall(r"^(license\w*):[ \t]*['\"]?([^'\"\n]+?)['\"]?\s*$", front[1], re.M)
    )
    name = values.get("license", "")
    return values.get("license_name", name) if name == "other" else name


def _file_licence(folder: Path) -> str:
    """Return the first line of a licence that says something."""
    for name in LICENCE_FILES:
        for line in _text(folder / name).splitlines():
            if words := line.strip(" #*=-\t\ufeff"):
                return words[:MAX_LETTERS]
    return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
