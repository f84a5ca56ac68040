"""The study's arms: every way of making pictures, of prompts and of starts that it compares."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

Kind = Literal["teacher", "start", "surrogates", "real", "dead-leaves"]
PLAIN_HEAD = 'teacher.templates=["a photo of a {}"]'


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One row of the table."""

    title: str
    """What the table calls it."""
    kind: Kind = "surrogates"
    """Where the student's pictures come from; `teacher` and `start` are measured as they are."""
    overrides: tuple[str, ...] = ()
    """Settings, as `--set` of `dfkd-edge distill` takes them."""
    is_reference_size: bool = False
    """Takes --num-reference-images: as many as per-image synthesis can be asked for."""
    paced_by: str = ""
    """Arm of the same settings, whose rate says how many images fit into the seconds of another."""
    in_seconds_of: str = "base"
    """That other arm."""
    teacher: str = "teacher"
    """Arm of the teacher that it is compared with."""


def _prompts(method: str, *more: str) -> tuple[str, ...]:
    """Settings of an arm whose images all follow from its prompts; drawings do not."""
    return (f"prompts.method={method}", "synthesis.exemplar_share=0", *more)


_PER_IMAGE = _prompts("contrastive", "synthesis.method=per-image")
_DESCENT = _prompts("contrastive", "synthesis.image_size_px=96")
"""A size of its own, although it is the prior's, is what the prior is not used for: images are made
as for any other teacher or decoder."""
_NETWORK = (*_DESCENT, "synthesis.training_passes=12")
_PIXELS = _prompts("contrastive", "synthesis.decoder=pixels")
_ARMS: dict[str, Arm] = {
    "teacher": Arm(title="teacher, zero-shot", kind="teacher"),
    "start": Arm(title="student before distillation", kind="start"),
    "base": Arm(title="Base", overrides=_prompts("base")),
    "mix": Arm(title="Mix", overrides=_prompts("mix")),
    "random": Arm(title="Random", overrides=_prompts("random")),
    "contrastive": Arm(title="Contrastive", overrides=_prompts("contrastive")),
    "contrastive-drawings": Arm(
        title="Contrastive and drawings (the default)", overrides=("prompts.method=contrastive",)
    ),
    "drawings-on-plain": Arm(
        title="the default, drawings on plain backgrounds",
        overrides=("prompts.method=contrastive", "synthesis.scene_share=0"),
    ),
    "drawings-in-scenes": Arm(
        title="the default, all drawings in scenes",
        overrides=("prompts.method=contrastive", "synthesis.scene_share=1"),
    ),
    "base-drawings": Arm(title="Base and drawings", overrides=("prompts.method=base",)),
    "mix-seconds": Arm(title="Mix, Base's seconds", overrides=_prompts("mix"), paced_by="mix"),
    "random-seconds": Arm(
        title="Random, Base's seconds", overrides=_prompts("random"), paced_by="random"
    ),
    "contrastive-seconds": Arm(
        title="Contrastive, Base's seconds",
        overrides=_prompts("contrastive"),
        paced_by="contrastive",
    ),
    "amortized-few": Arm(
        title="amortized, as few images", overrides=_prompts("contrastive"), is_reference_size=True
    ),
    "per-image": Arm(title="per-image", overrides=_PER_IMAGE, is_reference_size=True),
    "per-image-seconds": Arm(
        title="per-image, Base's seconds", overrides=_PER_IMAGE, paced_by="per-image"
    ),
    "descent": Arm(title="a short descent, no prior", overrides=_DESCENT),
    "descent-few": Arm(
        title="the short descent, as few images", overrides=_DESCENT, is_reference_size=True
    ),
    "network": Arm(title="a network before the short descent", overrides=_NETWORK),
    "network-few": Arm(
        title="the network, as few images", overrides=_NETWORK, is_reference_size=True
    ),
    "pixels": Arm(title="the short descent on pixels", overrides=_PIXELS),
    "pixels-few": Arm(
        title="the descent on pixels, as few images", overrides=_PIXELS, is_reference_size=True
    ),
    "pixels-few-seconds": Arm(
        title="the descent on pixels, the few's seconds",
        overrides=_PIXELS,
        paced_by="pixels-few",
        in_seconds_of="descent-few",
    ),
    "mix-domain-words": Arm(
        title="Mix, words name test domains",
        overrides=_prompts("mix", "prompts.style_words=domains"),
    ),
    "teacher-plain-head": Arm(
        title="teacher, head names no domain", kind="teacher", overrides=(PLAIN_HEAD,)
    ),
    "contrastive-plain-head": Arm(
        title="Contrastive, head names no domain",
        overrides=_prompts("contrastive", PLAIN_HEAD),
        teacher="teacher-plain-head",
    ),
    "real": Arm(title="real pictures (upper bound)", kind="real"),
    "dead-leaves": Arm(title="dead leaves (floor)", kind="dead-leaves"),
}
PRETRAINED = "-pretrained"
_FROM_WEIGHTS = ("start", "contrastive", "contrastive-drawings", "pixels", "real", "dead-leaves")
"""Arms that are there a second time, whose student begins with weights that saw real pictures."""
ARMS = _ARMS | {
    f"{name}{PRETRAINED}": dataclasses.replace(
        _ARMS[name],
        title=f"{_ARMS[name].title}, pretrained",
        overrides=(*_ARMS[name].overrides, "distillation.student_init=pretrained"),
    )
    for name in _FROM_WEIGHTS
}
