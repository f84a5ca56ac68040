"""Prompts with one free slot: where a style vector goes in, whatever the tokenizer.

The sentence is tokenised with two different words in the slot: the slot is where the ids differ.
It stands before the class, so that a description that is too long for the context loses its end,
never its style.

Shape suffixes: S styles, K classes, N pairs, T tokens, W token-embedding width, D embedding width.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dfkd_edge.class_names import ClassNames
from dfkd_edge.errors import ConfigError
from dfkd_edge.networks.teacher import TEXTS_TOGETHER, Teacher

STYLE_TEMPLATE = "a {} style of a"
"""PromptStyler's; the same for every method, so that they differ by their styles alone."""
SLOT_WORDS = (("warm", "cold"), ("red", "big"), ("new", "old"))
"""Pairs without a common letter; the pair that differs in the fewest tokens marks the slot."""
TRAINED_TOGETHER = 32
"""Texts whose activations are kept for a gradient: 0.9 GB in the text tower of ViT-B/32."""


def class_sentences(classes: ClassNames) -> list[str]:
    """Write the styled sentence of each class, with `{}` at the slot.

    A prompt of the class's own takes the place of its name: "a {} style of a photo of a jaguar".
    """
    ends = [
        f"of {prompt}" if prompt else f"of a {name}"
        for name, prompt in zip(classes.names, classes.prompts, strict=True)
    ]
    return [f"a {{}} style {end}" for end in ends]


class StyledPrompts:
    """Tokenised sentences of all classes, and of no class, with a slot for a style vector."""

    def __init__(self, teacher: Teacher) -> None:
        """Tokenise the sentences and find the slot.

        Raises:
            ConfigError: the tokenizer hides the slot.
        """
        self.teacher = teacher
        sentences = [STYLE_TEMPLATE, *class_sentences(teacher.classes)]
        words = min(SLOT_WORDS, key=lambda pair: int(self._tokenise(sentences[:1], pair)[1].sum()))
        tokens, mask = self._tokenise(sentences, words)
        if not bool(mask.any(1).all()):
            raise ConfigError(
                f"the tokenizer reads '{words[0]}' and '{words[1]}' as the same",
                where=f"--teacher {teacher.name}",
                hint="use --prompts base",
            )
        self._style_1T, self._style_mask_1T = tokens[:1], mask[:1]
        self._class_KT, self._class_mask_KT = tokens[1:], mask[1:]
        self.num_classes = len(self._class_KT)

    def _tokenise(self, sentences: list[str], words: tuple[str, str]) -> tuple[Tensor, Tensor]:
        """Token ids with the first word in the slot, and the mask of the slot; both [N, T]."""
        one, two = (
            self.teacher.tokenise([sentence.replace("{}", word, 1) for sentence in sentences])
            for word in words
        )
        return one, one != two

    def embed_styles(self, style_SW: Tensor) -> Tensor:
        """Embed "a S style of a" for every style; returns [S, D], differentiable."""

        def embed(style_NW: Tensor) -> Tensor:
            tokens_NT = self._style_1T.expand(len(style_NW), -1)
            mask_NT = self._style_mask_1T.expand(len(style_NW), -1)
            return self.teacher.embed_tokens(tokens_NT, mask_NT, style_NW)

        return _in_parts(embed, style_SW)

    def embed_pairs(self, class_N: Tensor, style_NW: Tensor) -> Tensor:
        """Embed "a S style of a class" for pairs; returns [N, D], differentiable in the styles."""
        return _in_parts(self._embed_pairs, class_N, style_NW)

    def _embed_pairs(self, class_N: Tensor, style_NW: Tensor) -> Tensor:
        return self.teacher.embed_tokens(
            self._class_KT[class_N], self._class_mask_KT[class_N], style_NW
        )

    @torch.no_grad()
    def embed_all(self, style_SW: Tensor) -> Tensor:
        """Embed every class in every style, TEXTS_TOGETHER at a time; returns [K, S, D]."""
        num_styles = len(style_SW)
        class_N = torch.arange(self.num_classes, device=style_SW.device)
        class_N = class_N.repeat_interleave(num_styles)
        style_N = torch.arange(num_styles, device=style_SW.device).repeat(self.num_classes)
        parts = [
            self._embed_pairs(part_N, style_SW[part_style_N])
            for part_N, part_style_N in zip(
                class_N.split(TEXTS_TOGETHER), style_N.split(TEXTS_TOGETHER), strict=True
            )
        ]
        return torch.cat(parts).view(self.num_classes, num_styles, -1)


def _in_parts(embed: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Embed many texts, keeping the activations of TRAINED_TOGETHER.

    Gradient checkpointing: the backward pass computes each part again.
    """
    if len(tensors[0]) <= TRAINED_TOGETHER:
        return embed(*tensors)
    parts = zip(*(tensor.split(TRAINED_TOGETHER) for tensor in tensors), strict=True)
    return torch.cat([checkpoint(embed, *part, use_reentrant=False) for part in parts])
