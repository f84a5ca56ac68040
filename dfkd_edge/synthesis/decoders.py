"""Decoders of latents by name: the embedded one, pixels, or a VQGAN, diffusers' `VQModel`.

Latents of a VQGAN are continuous; decoding takes the nearest codebook entry of each vector and lets
the gradient pass as if it had not (VQGAN-CLIP). A taming-transformers checkpoint has other names
for the same layers, and the sizes of the network follow from the shapes of its tensors.

Shape suffixes: N images, L latent channels, h, w latent rows and columns, T = h w latent cells,
E codebook entries.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import VQModel
from torch import Tensor

from dfkd_edge.config.settings import MINI, PIXELS, SynthesisConfig
from dfkd_edge.errors import ArtifactError, EnvironmentLackingError
from dfkd_edge.networks.draws import drawn
from dfkd_edge.networks.mixed_precision import compute_type, in_compute_type, mixed_precision
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.networks.unloadable import UNLOADABLE, reason_of
from dfkd_edge.networks.weights import HubWeights
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.preprocess import test_card
from dfkd_edge.synthesis.decoder import LatentDecoder, LatentShape, latent_shape_of, load_decoder
from dfkd_edge.synthesis.pixels import PixelDecoder

KNOWN_DECODERS = {"amused/amused-256/vqvae": 146_244_675}
"""Parameters of decoders that presets name; counted from their published configuration."""
DECODER_FILES = ("diffusion_pytorch_model.safetensors",)
DARK_SHARE, DARK = 0.05, -0.3  # What the darkest pixels fall below in [-1, 1] (ours)
CARD_SIDE_PX = 128  # Of 192 x 256 px when halved: enough cells of any VQGAN to show a picture
PAST_THE_BORDER = 1.001  # At the border between two codes rounding decides
TAMING_SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")
_RENAMED = (
    (r"^quantize\.embed\.", "quantize.embedding."),  # the Gumbel variant's name
    (r"\.(down|up)\.(\d+)\.block\.", r".\1_blocks.\2.resnets."),
    (r"\.(down|up)\.(\d+)\.attn\.", r".\1_blocks.\2.attentions."),
    (r"\.(down|up)\.(\d+)\.\1sample\.", r".\1_blocks.\2.\1samplers.0."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
    (r"\.norm_out\.", ".conv_norm_out."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
    (r"(attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
    (r"(attentions\.\d+)\.proj_out\.", r"\1.to_out.0."),
)
"""Patterns of taming-transformers' names -> diffusers' names, applied in this order."""


def load_latent_decoder(config: SynthesisConfig, teacher: Teacher) -> LatentDecoder:
    """Load the decoder of a configuration onto the teacher's device.

    Raises:
        ConfigError: it cannot make images of that size.
        ArtifactError: a checkpoint cannot be read.
        EnvironmentLackingError: the weights are not here and cannot be fetched.
    """
    device = str(teacher.device)
    if config.decoder == MINI:
        return load_decoder(device=device, image_size_px=config.image_size_px)
    if config.decoder == PIXELS:
        return PixelDecoder(config.image_size_px or teacher.image_size_px, device)
    model = load_vq_model(config.decoder).to(device)
    is_taming = Path(config.decoder).suffix in TAMING_SUFFIXES  # all of them draw [-1, 1]
    try:
        low = -1.0 if is_taming else lowest_pixel(model)
        decoder = VqganDecoder(model, config.image_size_px or teacher.image_size_px, low)
        with torch.inference_mode():
            drawn_NCHW = decoder.decode(decoder.start(1, 2, torch.Generator()))
        if drawn_NCHW.shape[1] != 3 or not bool(drawn_NCHW.isfinite().all()):
            raise ValueError("its pictures are no RGB")
    except UNLOADABLE as error:
        what, hint = f"decoder cannot draw: {reason_of(error)}", "name another decoder"
        where = f"synthesis.decoder = {config.decoder}"
        raise ArtifactError(what, where=where, hint=hint) from error
    return decoder


def decoder_weights(name: str) -> Iterator[HubWeights]:
    """Yield the weights of a decoder of the hub, `owner/name[/subfolder]`."""
    if name in (MINI, PIXELS) or Path(name).exists() or not name.count("/"):
        return
    owner, repo, *folder = name.split("/")
    yield HubWeights(
        what=f"decoder {name}",
        repo=f"{owner}/{repo}",
        folder="/".join(folder),
        files=DECODER_FILES,
        num_parameters=KNOWN_DECODERS.get(name),
        pattern="/".join((*folder, "*")),
    )


class VqganDecoder:
    """A VQ autoencoder as a decoder of latents; its encoder is not used."""

    def __init__(self, model: VQModel, image_size_px: int, low: float) -> None:
        """Freeze a model that draws pixels from `low`, -1 or 0, to 1.

        Raises:
            ConfigError: the side is no multiple of a latent cell's.
        """
        self.model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        if model.device.type != "cpu":
            in_compute_type(model.decoder, compute_type(model.device.type))
        config: Any = model.config
        codebook: Any = model.quantize.embedding
        self._codebook_EL: Tensor = codebook.weight.detach()
        self.spread = float(self._codebook_EL.std(0).square().mean().sqrt())
        self._low = self._codebook_EL.amin(0)[:, None, None]
        self._high = self._codebook_EL.amax(0)[:, None, None]
        cell_px = 2 ** (len(config.block_out_channels) - 1)  # every level but the last halves
        self._low_pixel = low
        self.image_size_px = image_size_px
        self.latent_shape: LatentShape = latent_shape_of(
            self._codebook_EL.shape[1], cell_px, image_size_px
        )

    def start(self, num: int, side: int, generator: torch.Generator) -> Tensor:
        """Draw codebook entries at random: [N, L, side, side]."""
        draw = partial(torch.randint, len(self._codebook_EL))
        entry_Nhw = drawn(draw, (num, side, side), generator)
        latent_NhwL = self._codebook_EL[entry_Nhw.to(self._codebook_EL.device)]
        return latent_NhwL.permute(0, 3, 1, 2).contiguous()

    def clamp(self, latent_NLhw: Tensor) -> Tensor:
        """Keep each channel within the codebook's range."""
        return latent_NLhw.maximum(self._low).minimum(self._high)

    @torch.no_grad()
    def descend(self, latent_NLhw: Tensor, gradient_NLhw: Tensor, rate: float) -> Tensor:
        """Step by `rate` deviations of the codebook, and far enough to change some codes.

        Between two codes nothing changes: where they lie far apart, a short step would leave every
        picture as it is. So at least a share `rate` of each image's cells, those with most to gain,
        come nearer to another code; the latent is of codes.
        """
        pairs = zip(latent_NLhw, gradient_NLhw, strict=True)
        return torch.stack([self._recoded(*pair, rate) for pair in pairs])

    def _recoded(self, latent_Lhw: Tensor, gradient_Lhw: Tensor, rate: float) -> Tensor:
        """Descend with one image, which keeps the distances of its cells to all codes small."""
        cell_TL, gradient_TL = latent_Lhw.flatten(1).T, gradient_Lhw.flatten(1).T
        code_T = torch.cdist(cell_TL, self._codebook_EL).argmin(1)
        cell_TL = self._codebook_EL[code_T]
        square_TE = torch.cdist(cell_TL, self._codebook_EL).square()
        fall_TE = (gradient_TL * cell_TL).sum(1, keepdim=True) - gradient_TL @ self._codebook_EL.T
        # a step of length s along the gradient g ends nearer to code e than to c where
        # |c - s g - e|^2 < |s g|^2, that is s > |c - e|^2 / (2 g (c - e))
        length_TE = torch.where(fall_TE > 0, square_TE / (2 * fall_TE), torch.inf)
        length_T = length_TE.scatter(1, code_T[:, None], torch.inf).amin(1)
        num = max(1, min(round(rate * len(length_T)), len(length_T)))
        needed = length_T.nan_to_num(posinf=0).kthvalue(num).values  # inf: it has no gradient
        size = gradient_Lhw.square().mean().sqrt().clamp(min=1e-12)
        step = (rate * self.spread / size).maximum(needed * PAST_THE_BORDER)
        new_T = (square_TE - 2 * step * fall_TE).argmin(1)
        return self._codebook_EL[new_T].T.view_as(latent_Lhw)

    def decode(self, latent_NLhw: Tensor) -> Tensor:
        """Decode to RGB images [N, 3, H, W] in [0, 1]; clipped pixels keep their gradient."""
        with mixed_precision(latent_NLhw.device.type):
            image_NCHW = self.model.decode(latent_NLhw).sample
        image_NCHW = (image_NCHW.float() - self._low_pixel) / (1 - self._low_pixel)
        clipped: Tensor = image_NCHW + (image_NCHW.clamp(0, 1) - image_NCHW).detach()
        return clipped


@torch.inference_mode()
def lowest_pixel(model: VQModel) -> float:
    """Find the range that an autoencoder was trained in: -1 for [-1, 1], 0 for [0, 1].

    No configuration tells: most take [-1, 1], aMUSEd's [0, 1] (`do_normalize=False` in its
    pipeline). Read in the wrong one, images lose half their contrast. The test card is given in
    [-1, 1]: a network that only ever drew [0, 1] does not bring its dark parts back.
    """
    card_HWC = torch.from_numpy(test_card(CARD_SIDE_PX)).to(model.device)
    card_NCHW = F.avg_pool2d(card_HWC.permute(2, 0, 1)[None] / 127.5 - 1, 2)  # no single pixels
    found_NCHW = model.decode(model.encode(card_NCHW).latents).sample
    return -1.0 if float(found_NCHW.quantile(DARK_SHARE)) < DARK else 0.0


def load_vq_model(name: str) -> VQModel:
    """Load a `VQModel` from a diffusers folder, `owner/name[/subfolder]`, or a taming checkpoint.

    Raises:
        ArtifactError: a file is damaged, of another kind, or holds more than tensors.
        EnvironmentLackingError: the weights are not here and cannot be fetched.
    """
    path = Path(name)
    if path.suffix in TAMING_SUFFIXES:
        return from_taming(read_checkpoint(path))
    place, subfolder = name, ""
    if not path.is_dir():
        place, subfolder = "/".join(name.split("/")[:2]), "/".join(name.split("/")[2:])
    try:
        with warnings.catch_warnings(action="ignore"):  # diffusers passes the hub outdated names
            model, told = VQModel.from_pretrained(
                place,
                subfolder=subfolder or None,
                use_safetensors=True,
                low_cpu_mem_usage=False,
                output_loading_info=True,
            )
        missing = told["missing_keys"]  # diffusers draws them at random, and warns
        if missing:
            raise ValueError(f"{counted(len(missing), 'tensor')} missing, such as {missing[0]}")
    except UNLOADABLE as error:
        raise EnvironmentLackingError(
            f"decoder '{name}' cannot be loaded: {reason_of(error)}",
            where="synthesis.decoder",
            hint=f"where there is network: hf download {place} --local-dir vqgan; copy the folder "
            f"here and use --set synthesis.decoder={'/'.join(filter(None, ('vqgan', subfolder)))}",
        ) from error
    found: VQModel = model
    return found


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a taming checkpoint; pickled code in it is refused, not run.

    Raises:
        ArtifactError: the file is damaged, or holds more than tensors.
        EnvironmentLackingError: there is no such file.
    """
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        state: Mapping[str, Any] = content.get("state_dict", content)
        return {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    except FileNotFoundError as error:
        raise EnvironmentLackingError(
            "no such checkpoint",
            where=f"synthesis.decoder = {path}",
            hint="where there is network, fetch a VQGAN listed at "
            "https://github.com/CompVis/taming-transformers#overview-of-pretrained-models "
            "and copy last.ckpt here",
        ) from error
    except UNLOADABLE as error:
        raise ArtifactError(
            "checkpoint is damaged or holds more than tensors",
            where=str(path),
            hint="where you trust the file, save only its 'state_dict' with safetensors, and name "
            "that file",
        ) from error


def from_taming(state: Mapping[str, Tensor]) -> VQModel:
    """Build the `VQModel` of a taming-transformers VQGAN.

    Raises:
        ArtifactError: the tensors are not those of a VQGAN.
    """
    state = {k.removeprefix("first_stage_model."): v for k, v in state.items()}
    try:
        config = taming_config(state)
        mapped = renamed(state, len(config["block_out_channels"]))
        model = VQModel(**config)
        model.load_state_dict(mapped)
    except UNLOADABLE as error:
        raise ArtifactError(
            f"not a taming-transformers VQGAN: {reason_of(error)}",
            where="synthesis.decoder",
            hint="a checkpoint of taming-transformers with a codebook, or a diffusers VQModel",
        ) from error
    return model


def taming_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the sizes of a VQGAN from its tensors; returns the arguments of `VQModel`."""

    def count(pattern: str) -> int:
        found = [int(m[1]) for key in state if (m := re.match(pattern, key))]
        return max(found) + 1 if found else 0

    num_levels = count(r"encoder\.down\.(\d+)\.")
    num_layers = count(r"encoder\.down\.0\.block\.(\d+)\.")
    with_attention = [f"encoder.down.{i}.attn.0.q.weight" in state for i in range(num_levels)]
    codebook = state.get("quantize.embedding.weight", state.get("quantize.embed.weight"))
    if codebook is None:
        raise KeyError("it has no codebook")
    return {
        "down_block_types": tuple(
            "AttnDownEncoderBlock2D" if has else "DownEncoderBlock2D" for has in with_attention
        ),
        "up_block_types": tuple(
            "AttnUpDecoderBlock2D" if has else "UpDecoderBlock2D" for has in with_attention[::-1]
        ),
        "block_out_channels": tuple(
            state[f"encoder.down.{i}.block.0.conv2.weight"].shape[0] for i in range(num_levels)
        ),
        "layers_per_block": num_layers,
        "latent_channels": state["decoder.conv_in.weight"].shape[1],
        "num_vq_embeddings": codebook.shape[0],
        "vq_embed_dim": codebook.shape[1],
    }


def renamed(state: Mapping[str, Tensor], num_levels: int) -> dict[str, Tensor]:
    """Rename a VQGAN's tensors as in diffusers; the networks of its loss are left out."""
    parts = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "quantize.emb")
    mapped = {}
    for key, tensor in state.items():
        if not key.startswith(parts):
            continue
        name = re.sub(
            r"^(decoder\.up)\.(\d+)\.",  # taming counts levels from the picture, diffusers from z
            lambda m: f"{m[1]}.{num_levels - 1 - int(m[2])}.",
            key,
        )
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        is_projection = re.search(r"attentions\.\d+\.to_.*weight$", name)
        mapped[name] = tensor[:, :, 0, 0] if is_projection else tensor  # 1 x 1 kernel to matrix
    return mapped
