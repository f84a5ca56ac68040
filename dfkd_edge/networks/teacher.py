"""The frozen OpenCLIP teacher: image and text embeddings, and the zero-shot head of a class list.

The embedded teacher (``mini``) is a model config registered with open_clip plus safetensors inside
this package; it is built by the same call as ``ViT-B-32``.

Shape suffixes: N images or texts, C = 3 channels, H rows, W columns, T tokens, D embedding width,
K classes.
"""

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from dfkd_edge import assets
from dfkd_edge.class_names import ClassNames
from dfkd_edge.config.settings import MINI, TeacherConfig
from dfkd_edge.errors import ConfigError, EnvironmentLackingError
from dfkd_edge.files import content_hash
from dfkd_edge.machine.process import muted
from dfkd_edge.networks.folding import fold_norms
from dfkd_edge.networks.mixed_precision import compute_type, in_compute_type, mixed_precision
from dfkd_edge.networks.names import require_teacher
from dfkd_edge.networks.transfer import sent
from dfkd_edge.networks.unloadable import UNLOADABLE, reason_of
from dfkd_edge.runs.key import teacher_content

_MINI_CONFIG = "dfkd-mini"
TEXTS_TOGETHER = 256  # Texts embedded at a time: 0.2 GB in the text tower of ViT-B/32
CPU_IMAGES_TOGETHER = 32
"""Images that a CPU embeds at a time where no gradient flows: more do not fit into its caches."""


def key_of_teacher(config: TeacherConfig, classes: ClassNames) -> str:
    """Hash a teacher's settings, the content of its local files, and its classes."""
    return content_hash(config, teacher_content(config), classes)


class Teacher:
    """A frozen CLIP with the zero-shot head of one class list."""

    def __init__(
        self, model: nn.Module, tokenizer: Any, config: TeacherConfig, classes: ClassNames
    ) -> None:
        self.model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.tokenizer = tokenizer
        self.config = config
        self.name = config.name
        self.classes = classes
        visual: Any = model.visual
        if self.device.type != "cpu":
            in_compute_type(visual, compute_type(self.device.type))
        size = visual.image_size  # a number or a pair, by the kind of tower
        high, wide = (size, size) if isinstance(size, int) else size
        if high != wide:
            raise ValueError(f"it takes pictures of {wide} x {high}, which are no squares")
        self.image_size_px = int(high)
        preprocess = open_clip.get_model_preprocess_cfg(model)
        self.mean = torch.tensor(preprocess["mean"], device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(preprocess["std"], device=self.device).view(1, 3, 1, 1)
        # CLIP learns the logarithm of its scale
        self.logit_scale = float(torch.as_tensor(model.logit_scale).exp())
        self.head_KD = self.zero_shot_head(classes, config.templates)
        numbers = (self.mean, 1 / self.std, torch.tensor(self.logit_scale), self.head_KD)
        if not all(bool(number.isfinite().all()) for number in (*numbers, *visual.parameters())):
            raise ValueError("its weights or settings hold numbers that are not finite")
        difference = (self.head_KD - self.head_KD[:1]).abs().max()
        is_apart = bool(difference >= 1e-6)  # else it holds zeros, or reads no text
        if len(self.head_KD) > 1 and not is_apart:
            raise ValueError("all class names are the same to it")
        fold_norms(visual, self.embed_images)

    @functools.cached_property
    def key(self) -> str:
        """Hash of its settings, the content of its local files, and its classes."""
        return key_of_teacher(self.config, self.classes)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def embed_dim(self) -> int:
        """Width D of the shared space."""
        return self.head_KD.shape[1]

    @property
    def num_image_parameters(self) -> int:
        """Parameters of the image tower."""
        visual: Any = self.model.visual
        return sum(p.numel() for p in visual.parameters())

    def zero_shot_head(self, classes: ClassNames, templates: Sequence[str]) -> Tensor:
        """Mean embedding of each class over the templates, or of its own prompt; [K, D]."""
        groups = [
            # replace, not format: a name may hold braces of its own
            [prompt] if prompt else [template.replace("{}", name) for template in templates]
            for name, prompt in zip(classes.names, classes.prompts, strict=True)
        ]
        embedding_ND = self.embed_texts([text for group in groups for text in group])
        rows = embedding_ND.split([len(group) for group in groups])
        return F.normalize(torch.stack([row.mean(0) for row in rows]), dim=1)  # CLIP's ensemble

    def embed_images(
        self, image_NCHW: Tensor, encode: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Embed RGB images in [0, 1] of any size; differentiable in the images.

        Args:
            image_NCHW: the images.
            encode: takes the place of the tower, as `frozen_tower` does.

        Returns:
            Unit embeddings [N, D], float32.
        """
        side = self.image_size_px
        if image_NCHW.shape[-2:] != (side, side):
            image_NCHW = F.interpolate(
                image_NCHW, size=(side, side), mode="bilinear", antialias=True, align_corners=False
            )
        normal_NCHW = (image_NCHW - self.mean.to(image_NCHW)) / self.std.to(image_NCHW)
        normal_NCHW = normal_NCHW.contiguous(memory_format=torch.channels_last)
        is_in_parts = self.device.type == "cpu" and not torch.is_grad_enabled()
        parts = normal_NCHW.split(CPU_IMAGES_TOGETHER) if is_in_parts else (normal_NCHW,)
        with mixed_precision(self.device.type):
            model: Any = self.model
            encode = encode or model.encode_image
            embedding_ND = torch.cat([encode(part) for part in parts])
        return F.normalize(embedding_ND.float(), dim=1)  # out of bfloat16 first

    def tokenise(self, texts: Sequence[str]) -> Tensor:
        """Token ids of texts, [N, T], on the host: where they end is asked at every step."""
        tokens_NT: Tensor = self.tokenizer(list(texts))
        return tokens_NT

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts, TEXTS_TOGETHER at a time; returns as `embed_tokens`."""
        if not texts:  # the tokenizer of SigLIP takes no empty list
            return self.head_KD[:0]
        tokens_NT = self.tokenise(texts)
        return torch.cat([self.embed_tokens(part) for part in tokens_NT.split(TEXTS_TOGETHER)])

    def embed_tokens(
        self, tokens_NT: Tensor, style_mask_NT: Tensor | None = None, style_NW: Tensor | None = None
    ) -> Tensor:
        """Embed token ids, with a free vector in place of the tokens under a mask.

        Args:
            tokens_NT: token ids, on the host.
            style_mask_NT: True where the token embedding is replaced.
            style_NW: what replaces it in each text, in token-embedding space.

        Returns:
            Unit embeddings [N, D], float32, differentiable in style_NW.
        """
        if reads_ends_only(self.model) and len(tokens_NT):
            tokens_NT = tokens_NT[:, : int(tokens_NT.argmax(1).max()) + 1]  # to the last end mark
        tokens_NT = sent(tokens_NT, self.device)
        if style_mask_NT is None or style_NW is None:
            return encode_text(self.model, tokens_NT)
        mask_NT1 = sent(style_mask_NT[:, : tokens_NT.shape[1], None], self.device)

        def replace(_module: nn.Module, _args: object, output_NTW: Tensor) -> Tensor:
            return torch.where(mask_NT1, style_NW[:, None], output_NTW)

        handle = self.token_embedding.register_forward_hook(replace)
        try:
            return encode_text(self.model, tokens_NT)
        finally:
            handle.remove()

    @functools.cached_property
    def token_embedding(self) -> nn.Embedding:
        """The text tower's token table, [vocabulary, W].

        open_clip's towers keep it in various places: it is the table that is looked up by the ids.

        Raises:
            ConfigError: the text tower has none.
        """
        model: Any = self.model
        tokens_1T = self.tokenise(["a"]).to(self.device)
        found: list[nn.Embedding] = []

        def look(module: nn.Embedding, args: tuple[Any, ...]) -> None:
            if args and args[0].shape == tokens_1T.shape and bool((args[0] == tokens_1T).all()):
                found.append(module)

        tables = [m for m in model.modules() if isinstance(m, nn.Embedding)]
        handles = [table.register_forward_pre_hook(look) for table in tables]
        try:
            model.encode_text(tokens_1T)
        finally:
            for handle in handles:
                handle.remove()
        if not found:
            raise ConfigError(
                "the text tower has no token table",
                where=f"--teacher {self.name}",
                hint="use --prompts base",
            )
        return found[0]

    def logits(self, embedding_ND: Tensor) -> Tensor:
        """Zero-shot logits [N, K] of unit image embeddings."""
        return self.logit_scale * embedding_ND @ self.head_KD.T


def reads_ends_only(model: Any) -> bool:
    """Whether a text tower reads nothing beyond the end mark, which has the largest id.

    CLIP's own towers are causal and pool at the end mark: padding changes nothing, and left out it
    saves most of the time. A tower that attends to its padding needs it.
    """
    is_clip = isinstance(model, open_clip.CLIP) and model.attn_mask is not None
    return is_clip and model.text_pool_type == "argmax"


def encode_text(model: Any, tokens_NT: Tensor) -> Tensor:
    """Encode token ids to unit embeddings [N, D], float32.

    They may be fewer than the context is long where `reads_ends_only`.
    """
    num_tokens = tokens_NT.shape[1]
    if not reads_ends_only(model) or num_tokens == model.context_length:
        return F.normalize(model.encode_text(tokens_NT).float(), dim=1)
    shortened = {
        "positional_embedding": model.positional_embedding[:num_tokens],
        "attn_mask": model.attn_mask[:num_tokens, :num_tokens],
    }
    _, unit_ND, *_ = functional_call(model, shortened, (None, tokens_NT), tie_weights=False)
    return F.normalize(unit_ND.float(), dim=1)


def open_clip_name(config: TeacherConfig) -> tuple[str, str | None]:
    """Return open_clip's name of a teacher, and the tag or file of its weights.

    Raises:
        ConfigError: there is no such name, or no such weights for it.
    """
    name, pretrained = config.name, config.pretrained
    if name == MINI:
        open_clip.add_model_config(assets.TEACHER / f"{_MINI_CONFIG}.json")
        return _MINI_CONFIG, str(assets.TEACHER / f"{_MINI_CONFIG}.safetensors")
    if Path(name).is_dir():
        return f"local-dir:{name}", None
    if ":" in name:
        return name, None
    require_teacher(name)
    tags = open_clip.list_pretrained_tags_by_model(name)
    is_file = Path(pretrained).suffix or Path(pretrained).exists()
    if not pretrained or not (is_file or open_clip.get_pretrained_cfg(name, pretrained)):
        fault = f"no weights '{pretrained}' for {name}" if pretrained else f"{name} has no weights"
        raise ConfigError(
            fault, where="--pretrained", hint=f"a file, or one of: {', '.join(tags) or 'none'}"
        )
    return name, pretrained


def activation_options(config: TeacherConfig) -> dict[str, bool]:
    """Return open_clip's option that gives a teacher the activation its weights were trained with.

    Weights of both kinds go under one name of the architecture; the wrong one costs points, and
    open_clip only warns (open_clip#1109).

    Raises:
        ConfigError: a weight file of an architecture that was trained with both.
    """
    if config.activation != "auto":
        return {"quick_gelu": config.activation == "quickgelu"}
    name, tag = config.name, config.pretrained
    if not tag:
        return {}  # `mini` and folders bring their own configuration
    trained = open_clip.get_pretrained_cfg(name, tag)
    if trained:
        return {"quick_gelu": bool(trained.get("quick_gelu"))}
    tags = open_clip.list_pretrained_tags_by_model(name)
    kinds = {t: bool(open_clip.get_pretrained_cfg(name, t).get("quick_gelu")) for t in tags}
    own = bool((open_clip.get_model_config(name) or {}).get("quick_gelu"))
    if {own, *kinds.values()} == {True, False}:
        quick = ", ".join(t for t in tags if kinds[t])
        raise ConfigError(
            f"weights of {name} exist with GELU and with QuickGELU; a file does not say which",
            where=f"--pretrained {tag}",
            hint=f"--set teacher.activation=quickgelu (as {quick}) or gelu (as all other tags); "
            "in a finished run, activation below [teacher] in its config.toml",
        )
    return {"quick_gelu": own}


def load_teacher(config: TeacherConfig, classes: ClassNames, device: str = "cpu") -> Teacher:
    """Load a teacher by name and build its zero-shot head.

    Raises:
        ConfigError: the name is unknown.
        EnvironmentLackingError: the weights, or a library they need, are not here.
    """
    name, pretrained = open_clip_name(config)
    options = activation_options(config)
    try:
        with muted(logging.WARNING):
            model = open_clip.create_model(
                name, pretrained=pretrained, device=device, require_pretrained=True, **options
            )
            tokenizer = open_clip.get_tokenizer(name)
        return Teacher(model, tokenizer, config, classes)
    except UNLOADABLE as error:
        raise EnvironmentLackingError(
            f"teacher '{config.name}' cannot be loaded: {reason_of(error)}",
            where=f"--teacher {config.name} --pretrained {config.pretrained or '(none)'}",
            hint="a folder needs open_clip_config.json and open_clip_model.safetensors; "
            f"--teacher {MINI} needs nothing",
        ) from error
    except ImportError as error:
        raise EnvironmentLackingError(
            "the teacher's tokenizer needs the library transformers",
            where=f"--teacher {config.name}",
            hint="pip install 'dfkd-edge[siglip]'",
        ) from error
