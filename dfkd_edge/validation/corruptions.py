"""The built-in corruption suite: twelve ways in which a camera or the weather spoils a picture.

In the spirit of ImageNet-C (Hendrycks and Dietterich, ICLR 2019): five severities each, drawn from
a seed, but from numpy and Pillow alone and with strengths of our own, for images of any side.

Shape suffixes: N images, H rows, W columns, C = 3 channels (RGB). Images are uint8 outside and
float32 in [0, 1] inside.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from dfkd_edge.seeding import derived_seed

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]
Corruption = Callable[..., Images]  # Of images, a strength of its own kind, and a generator


def _to_float(image_NHWC: Images) -> Floats:
    return image_NHWC.astype(np.float32) / np.float32(255)


def _to_bytes(image_NHWC: NDArray[Any]) -> Images:
    clipped: NDArray[Any] = np.clip(image_NHWC, 0, 1)
    return np.round(clipped * 255).astype(np.uint8)


def _by_picture(image_NHWC: Images, change: Callable[[Image.Image], Image.Image]) -> Images:
    return np.stack([np.asarray(change(Image.fromarray(picture))) for picture in image_NHWC])


def _cloud(shape_NHW: tuple[int, int, int], roughness: float, rng: np.random.Generator) -> Floats:
    """Smooth random fields in [0, 1], [N, H, W]: noise whose spectrum falls with frequency."""
    height, width = shape_NHW[1:]
    row, column = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.sqrt(row**2 + column**2)
    frequency[0, 0] = 1.0  # of the mean, which is set to 0 below: no division by zero
    noise = np.fft.rfft2(rng.standard_normal(shape_NHW)) / frequency**roughness
    noise[:, 0, 0] = 0
    field_NHW = np.fft.irfft2(noise, s=(height, width))
    low, high = field_NHW.min((1, 2), keepdims=True), field_NHW.max((1, 2), keepdims=True)
    # an image of one pixel has no range
    scaled: Floats = ((field_NHW - low) / np.maximum(high - low, 1e-9)).astype(np.float32)
    return scaled


def _streaks(
    image_NHWC: Images, share: float, length_px: int, slope: float, rng: np.random.Generator
) -> Floats:
    """Bright streaks of falling drops or flakes, [N, H, W, 1] in [0, 1]."""
    seed_NHW = (rng.random(image_NHWC.shape[:3]) < share).astype(np.float32)
    streak_NHW = np.zeros_like(seed_NHW)
    for step in range(length_px):
        streak_NHW = np.maximum(
            streak_NHW, np.roll(seed_NHW, (step, round(step * slope)), axis=(1, 2))
        )
    return streak_NHW[..., None]


def gaussian_noise(image_NHWC: Images, deviation: float, rng: np.random.Generator) -> Images:
    """Sensor noise that does not depend on the light."""
    noise = rng.standard_normal(image_NHWC.shape, dtype=np.float32)
    return _to_bytes(_to_float(image_NHWC) + deviation * noise)


def shot_noise(image_NHWC: Images, num_photons: float, rng: np.random.Generator) -> Images:
    """Photon noise of a dark scene."""
    # counts of photons are Poisson: noise grows with the root of the light
    return _to_bytes(rng.poisson(_to_float(image_NHWC) * num_photons) / num_photons)


def impulse_noise(image_NHWC: Images, share: float, rng: np.random.Generator) -> Images:
    """Salt and pepper: broken pixels."""
    draw = rng.random(image_NHWC.shape[:3])[..., None]
    salted = np.where(draw < share / 2, np.uint8(255), image_NHWC)
    return np.where(draw > 1 - share / 2, np.uint8(0), salted)


def defocus_blur(image_NHWC: Images, radius_px: float, rng: np.random.Generator) -> Images:
    """A lens out of focus; the radius follows the image's side."""
    radius = radius_px * image_NHWC.shape[1] / 128
    return _by_picture(image_NHWC, lambda p: p.filter(ImageFilter.GaussianBlur(radius)))


def motion_blur(image_NHWC: Images, length: float, rng: np.random.Generator) -> Images:
    """A camera that moves: each picture sideways, upwards or along a diagonal."""
    length_px = max(2, round(length * image_NHWC.shape[1] / 128))
    # np.roll wraps around: what comes in from the other side lies in the border, which is cut off
    border = ((0, 0), (length_px,) * 2, (length_px,) * 2, (0, 0))
    direction_N = rng.permutation(np.arange(len(image_NHWC)) % 4)  # each as often
    moved = image_NHWC.copy()
    for number, (down, right) in enumerate(((0, 1), (1, 0), (1, 1), (1, -1))):
        wide = _to_float(np.pad(image_NHWC[direction_N == number], border, mode="edge"))
        total = np.zeros_like(wide)
        for offset in range(-(length_px // 2), length_px - length_px // 2):
            total += np.roll(wide, (offset * down, offset * right), axis=(1, 2))
        inner = slice(length_px, -length_px)
        moved[direction_N == number] = _to_bytes(total[:, inner, inner] / length_px)
    return moved


def pixelate(image_NHWC: Images, share: float, rng: np.random.Generator) -> Images:
    """A picture enlarged from few pixels."""
    height, width = image_NHWC.shape[1:3]
    small = (max(1, round(width * share)), max(1, round(height * share)))
    return _by_picture(
        image_NHWC,
        lambda p: p.resize(small, Image.Resampling.BOX).resize(
            (width, height), Image.Resampling.NEAREST
        ),
    )


def fog(image_NHWC: Images, density: float, rng: np.random.Generator) -> Images:
    """Uneven white haze."""
    haze_NHW1 = density * (0.6 + 0.4 * _cloud(image_NHWC.shape[:3], 2.0, rng)[..., None])
    return _to_bytes(_to_float(image_NHWC) * (1 - haze_NHW1) + haze_NHW1)


def snow(image_NHWC: Images, look: tuple[float, float], rng: np.random.Generator) -> Images:
    """Flakes before a scene that is paler and brighter."""
    share, pale = look
    flakes = _streaks(image_NHWC, share, max(2, image_NHWC.shape[1] // 42), 0.5, rng)
    pale_NHWC = _to_float(image_NHWC) * (1 - pale) + pale
    return _to_bytes(np.maximum(pale_NHWC, 0.95 * flakes))


def rain(image_NHWC: Images, look: tuple[float, float], rng: np.random.Generator) -> Images:
    """Thin grey streaks before a darker scene."""
    share, dark = look
    drops = _streaks(image_NHWC, share, max(3, image_NHWC.shape[1] // 12), 0.25, rng)
    return _to_bytes(_to_float(image_NHWC) * dark * (1 - 0.45 * drops) + 0.3 * drops)


def low_contrast(image_NHWC: Images, share: float, rng: np.random.Generator) -> Images:
    """Values drawn towards the picture's mean."""
    image = _to_float(image_NHWC)
    mean = image.mean((1, 2, 3), keepdims=True)
    return _to_bytes(mean + share * (image - mean))


def exposure(image_NHWC: Images, stops: float, rng: np.random.Generator) -> Images:
    """Each picture too dark or too bright."""
    sign = rng.choice((-1.0, 1.0), len(image_NHWC))[:, None, None, None]
    return _to_bytes(_to_float(image_NHWC) * np.exp2(sign * stops))


def jpeg(image_NHWC: Images, quality: int, rng: np.random.Generator) -> Images:
    """Blocks and ringing of strong compression."""

    def compress(picture: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return _by_picture(image_NHWC, compress)


CORRUPTIONS: dict[str, tuple[Corruption, tuple[object, ...]]] = {
    "gaussian-noise": (gaussian_noise, (0.04, 0.06, 0.08, 0.12, 0.18)),
    "shot-noise": (shot_noise, (120, 60, 30, 15, 8)),
    "impulse-noise": (impulse_noise, (0.01, 0.03, 0.05, 0.09, 0.15)),
    "defocus-blur": (defocus_blur, (0.5, 0.8, 1.2, 1.7, 2.4)),  # Pixels of 128
    "motion-blur": (motion_blur, (3, 4, 6, 8, 11)),  # Pixels of 128
    "pixelate": (pixelate, (0.7, 0.55, 0.45, 0.35, 0.25)),
    "fog": (fog, (0.25, 0.35, 0.45, 0.55, 0.7)),
    "snow": (snow, ((0.003, 0.1), (0.005, 0.15), (0.008, 0.2), (0.012, 0.25), (0.018, 0.3))),
    "rain": (rain, ((0.002, 0.95), (0.003, 0.9), (0.005, 0.85), (0.007, 0.78), (0.01, 0.7))),
    "low-contrast": (low_contrast, (0.7, 0.55, 0.4, 0.3, 0.2)),
    "exposure": (exposure, (0.3, 0.5, 0.7, 0.95, 1.25)),  # Stops, up or down
    "jpeg": (jpeg, (45, 30, 20, 13, 8)),  # Quality of Pillow
}
"""Each with its strengths from severity 1 (mild) to 5 (strong), which are ours."""
GROUPS: dict[str, tuple[str, ...]] = {
    "noise": ("gaussian-noise", "shot-noise", "impulse-noise"),
    "blur": ("defocus-blur", "motion-blur", "pixelate"),
    "weather": ("fog", "snow", "rain"),
    "digital": ("low-contrast", "exposure", "jpeg"),
}
"""The domains of a check without data."""


def corrupt(image_NHWC: Images, name: str, severity: int, seed: int) -> Images:
    """Corrupt images; equal arguments give equal bytes, and the input is left as it is.

    Args:
        image_NHWC: uint8 RGB.
        name: a key of CORRUPTIONS.
        severity: 1 (mild) to 5 (strong).
        seed: what is random follows from it, the name and the severity.
    """
    rng = np.random.default_rng(derived_seed(seed, "corruption", name, severity))
    apply, strengths = CORRUPTIONS[name]
    return apply(image_NHWC, strengths[severity - 1], rng)


def corrupted_group(image_NHWC: Images, group: str, seed: int) -> Images:
    """Corrupt each image once: the group's corruptions and the five severities take turns."""
    kinds = [(name, severity) for severity in range(1, 6) for name in GROUPS[group]]
    corrupted = image_NHWC.copy()
    for turn, (name, severity) in enumerate(kinds):
        rows = slice(turn, None, len(kinds))
        if len(image_NHWC[rows]):  # fewer images than turns leave some without any
            corrupted[rows] = corrupt(image_NHWC[rows], name, severity, seed)
    return corrupted
