"""Prompts with one free slot: where a style vector goes in, whatever the tokenizer.

The sentence is tokenised with two different words in the slot: the slot is where the ids differ.
It stands before the class, so that a description that is too long for the context loses its end,
never its style.

Shape suffixes: S styles, K classes, N pairs, T tokens, W token-embedding width, D embedding width.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dfkd_edge.class_names import ClassNames
from dfkd_edge.errors import ConfigError
from dfkd_edge.networks.teacher import TEXTS_TOGETHER, Teacher
from dfkd_edge.networks.transfer import sent

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
        self.teacher, self.num_classes = teacher, len(teacher.classes.names)
        sentences = [*class_sentences(teacher.classes), STYLE_TEMPLATE]  # no class is row -1
        words = min(SLOT_WORDS, key=lambda pair: int(self._tokenise(sentences[-1:], pair)[1].sum()))
        self._tokens_NT, self._mask_NT = self._tokenise(sentences, words)
        if not bool(self._mask_NT.any(1).all()):
            raise ConfigError(
                f"the tokenizer reads '{words[0]}' and '{words[1]}' as the same",
                where=f"--teacher {teacher.name}",
                hint="use --prompts base",
            )

    def _tokenise(self, sentences: list[str], words: tuple[str, str]) -> tuple[Tensor, Tensor]:
        """Token ids with the first word in the slot, and its mask; both [N, T], on the host."""
        one, two = (
            self.teacher.tokenise([sentence.replace("{}", word, 1) for sentence in sentences])
            for word in words
        )
        return one, one != two

    def embed_styles(self, style_SW: Tensor) -> Tensor:
        """Embed "a S style of a" for every style; returns [S, D], differentiable."""
        no_class_S = torch.full((len(style_SW),), -1)
        return self.embed_pairs(no_class_S, style_SW)

    def embed_pairs(self, class_N: Tensor, style_NW: Tensor) -> Tensor:
        """Embed "a S style of a class" for pairs; returns [N, D], differentiable in the styles.

        The numbers of the classes lie on the host, as the tokens do.
        """
        if len(class_N) <= TRAINED_TOGETHER:
            return self._embed(class_N, style_NW)
        parts = zip(class_N.split(TRAINED_TOGETHER), style_NW.split(TRAINED_TOGETHER), strict=True)
        # the backward pass computes each part again, so that one part's activations are kept
        return torch.cat([checkpoint(self._embed, *part, use_reentrant=False) for part in parts])

    def _embed(self, class_N: Tensor, style_NW: Tensor) -> Tensor:
        return self.teacher.embed_tokens(self._tokens_NT[class_N], self._mask_NT[class_N], style_NW)

    @torch.no_grad()
    def embed_all(self, style_SW: Tensor) -> Tensor:
        """Embed every class in every style, TEXTS_TOGETHER at a time; returns [K, S, D]."""
        classes, styles = torch.arange(self.num_classes), torch.arange(len(style_SW))
        pair_N2 = torch.cartesian_prod(classes, styles)
        parts = [
            self._embed(class_N, style_SW[sent(style_N, style_SW.device)])
            for class_N, style_N in (part_N2.unbind(1) for part_N2 in pair_N2.split(TEXTS_TOGETHER))
        ]
        return torch.cat(parts).view(self.num_classes, len(style_SW), -1)
