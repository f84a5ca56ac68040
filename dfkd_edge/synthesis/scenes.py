"""Scenes that drawings are laid in: texture or another picture, light, shadow, other drawings.

Domain randomisation: Tobin et al., IROS 2017. In photographs the amplitude falls about as 1 / f
(Field, 1987); which noise, light and shadow pay is ours.

Shape suffixes: N images, P side in pixels, p = P // 2 + 1 columns of a spectrum, C = 3 channels
(RGB). Every image is float in [0, 1]; drawings are RGBA, not premultiplied, [N, 4, P, P].
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.networks.draws import drawn
from dfkd_edge.networks.views import uniform

SLOPE = 1.0, 1.8  # Exponents of 1 / f; photographs have about 1
CONTRAST = 0.05, 0.22  # Deviation of a texture's brightness
MAX_COLOUR = 0.5  # Largest deviation of a texture's colours, relative to its brightness's
SHADED_SHARE = 0.5  # Of the drawings: noise lies on them too
SHADE = 0.08, 0.3  # Its deviation, relative to their brightness
MAX_LIGHT = 0.35  # By how much light from one side brightens and dims the edges
SHADOWED_SHARE, SHADOW = 0.5, (0.15, 0.6)  # Drawings that throw a shadow, and its darkness
SHADOW_PX = 6  # Pixels that a shadow's edge is soft over, of a picture of 96
HIDDEN_SHARE, HIDDEN_SIZE = 0.15, (0.15, 0.4)  # Drawings a box lies on, and its sides
PICTURE_SHARE, BLUR_PX = 0.35, 8  # Scenes before a blurred picture, of 96 pixels
BEHIND_SHARE, BEFORE_SHARE = 0.3, 0.1  # Drawings with a smaller one behind them, or before them
ASIDE_SIZE, ASIDE = (0.3, 0.55), 0.7  # Its side, and how far it lies from the middle


def spectral_noise(num: int, channels: int, side: int, generator: torch.Generator) -> Tensor:
    """Draw noise whose amplitude falls as a power of the frequency, another one each image.

    Every channel has mean 0 and deviation 1; [N, channels, P, P].
    """
    white = drawn(torch.randn, (num, channels, side, side), generator)
    row_P = torch.fft.fftfreq(side, 1 / side, device=white.device)
    column_p = torch.fft.rfftfreq(side, 1 / side, device=white.device)
    frequency_Pp = torch.hypot(row_P[:, None], column_p)
    slope_N111 = uniform((num, 1, 1, 1), *SLOPE, generator)
    gain_N1Pp = frequency_Pp.clamp(min=1) ** -slope_N111 * (frequency_Pp > 0)
    noise: Tensor = torch.fft.irfft2(torch.fft.rfft2(white) * gain_N1Pp, s=(side, side))
    deviation: Tensor = noise.std((2, 3), keepdim=True)
    return noise / deviation


def textures(num: int, side: int, generator: torch.Generator) -> Tensor:
    """Draw coloured noise of random brightness, contrast and colours, [N, C, P, P]."""
    noise = spectral_noise(num, 4, side, generator)
    colour_N111 = uniform((num, 1, 1, 1), 0, MAX_COLOUR, generator)
    brightness_N111 = uniform((num, 1, 1, 1), 0.25, 0.9, generator)
    tint_NC11 = uniform((num, 3, 1, 1), -0.15, 0.15, generator)
    contrast_N111 = uniform((num, 1, 1, 1), *CONTRAST, generator)
    varied = (noise[:, :1] + colour_N111 * noise[:, 1:]) / (1 + colour_N111.square()).sqrt()
    return (brightness_N111 + tint_NC11 + contrast_N111 * varied).clamp(0, 1)


def shaded(colour_NCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Vary the brightness of some drawings by noise."""
    num, side = len(colour_NCPP), colour_NCPP.shape[-1]
    depth_N111 = sometimes(SHADED_SHARE, *SHADE, num, generator)
    light = 1 + depth_N111 * spectral_noise(num, 1, side, generator)
    return (colour_NCPP * light.to(colour_NCPP)).clamp(0, 1)


def sometimes(
    share: float, low: float, high: float, num: int, generator: torch.Generator
) -> Tensor:
    """Draw a strength for a share of the images and 0 for the others, [N, 1, 1, 1]."""
    strength_N111 = uniform((num, 1, 1, 1), low, high, generator)
    return strength_N111 * (uniform((num, 1, 1, 1), 0, 1, generator) < share)


def shadows(alpha_N1PP: Tensor, generator: torch.Generator) -> Tensor:
    """Throw soft shadows, by which to multiply what lies behind, [N, 1, P, P]."""
    num, side = len(alpha_N1PP), alpha_N1PP.shape[-1]
    soft_px = max(round(SHADOW_PX * side / 96), 1)
    small = F.avg_pool2d(alpha_N1PP, soft_px, ceil_mode=True, count_include_pad=False)
    shift_N2 = uniform((num, 2), -0.25, 0.25, generator)
    identity = torch.eye(2, device=shift_N2.device).expand(num, 2, 2)
    affine_N23 = torch.cat((identity, shift_N2[:, :, None]), 2).to(alpha_N1PP)
    grid = F.affine_grid(affine_N23, [num, 1, side, side], align_corners=False)
    thrown = F.grid_sample(small, grid, mode="bilinear", align_corners=False)
    return 1 - sometimes(SHADOWED_SHARE, *SHADOW, num, generator).to(thrown) * thrown


def lit(image_NCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Light each image from a side."""
    num, side = len(image_NCPP), image_NCPP.shape[-1]
    slope_N2 = uniform((num, 2, 1, 1), -MAX_LIGHT, MAX_LIGHT, generator).to(image_NCPP)
    across = torch.linspace(-1, 1, side).to(image_NCPP)
    light_N1PP = 1 + slope_N2[:, :1] * across + slope_N2[:, 1:] * across[:, None]
    return (image_NCPP * light_N1PP).clamp(0, 1)


def partly_hidden(image_NCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Lay a textured box on some images."""
    num, side = len(image_NCPP), image_NCPP.shape[-1]
    half_N2 = uniform((num, 2, 1, 1), *HIDDEN_SIZE, generator)
    centre_N2 = uniform((num, 2, 1, 1), -1, 1, generator)
    is_hidden_N111 = uniform((num, 1, 1, 1), 0, 1, generator) < HIDDEN_SHARE
    across = torch.linspace(-1, 1, side, device=half_N2.device)
    is_column = (across - centre_N2[:, :1]).abs() < half_N2[:, :1]
    is_row = (across[:, None] - centre_N2[:, 1:]).abs() < half_N2[:, 1:]
    box = textures(num, side, generator).to(image_NCPP)
    return torch.where(is_hidden_N111 & is_column & is_row, box, image_NCPP)


def backgrounds(picture_NCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Lay textures behind, or the pictures, out of focus."""
    num, side = len(picture_NCPP), picture_NCPP.shape[-1]
    soft_px = max(round(BLUR_PX * side / 96), 1)
    small = F.avg_pool2d(picture_NCPP, soft_px, ceil_mode=True, count_include_pad=False)
    blurred = F.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)
    texture = textures(num, side, generator).to(picture_NCPP)
    has_picture_N111 = uniform((num, 1, 1, 1), 0, 1, generator) < PICTURE_SHARE
    return torch.where(has_picture_N111, blurred, texture)


def aside(other_N4PP: Tensor, generator: torch.Generator) -> Tensor:
    """Make drawings small and move them; premultiplied, for their colours lie on others."""
    num, side = len(other_N4PP), other_N4PP.shape[-1]
    stretch_N11 = 1 / uniform((num, 1, 1), *ASIDE_SIZE, generator)
    shift_N21 = uniform((num, 2, 1), -ASIDE, ASIDE, generator)
    identity = torch.eye(2, device=shift_N21.device).expand(num, 2, 2)
    affine_N23 = (torch.cat((identity, -shift_N21), 2) * stretch_N11).to(other_N4PP)
    alpha = other_N4PP[:, 3:]
    premultiplied = torch.cat((other_N4PP[:, :3] * alpha, alpha), 1)
    grid = F.affine_grid(affine_N23, [num, 4, side, side], align_corners=False)
    return F.grid_sample(premultiplied, grid, mode="bilinear", align_corners=False)


def in_scenes(
    drawing_N4PP: Tensor, other_N4PP: Tensor, picture_NCPP: Tensor, generator: torch.Generator
) -> Tensor:
    """Lay drawings in scenes of their own.

    Args:
        drawing_N4PP: what the scenes show.
        other_N4PP: what stands behind some of them, or hides a part.
        picture_NCPP: what some have behind them, out of focus.
        generator: draws all else.
    """
    colour, alpha, num = drawing_N4PP[:, :3], drawing_N4PP[:, 3:], len(drawing_N4PP)
    behind = backgrounds(picture_NCPP, generator)
    other, luck_N111 = aside(other_N4PP, generator), uniform((num, 1, 1, 1), 0, 1, generator)
    is_behind = (luck_N111 < BEHIND_SHARE).to(other)
    is_before = (luck_N111 > 1 - BEFORE_SHARE).to(other)
    behind = over(other * is_behind, behind) * shadows(alpha, generator)
    shown = shaded(colour, generator) * alpha + behind * (1 - alpha)
    return partly_hidden(lit(over(other * is_before, shown), generator), generator)


def over(drawing_N4PP: Tensor, image_NCPP: Tensor) -> Tensor:
    """Lay premultiplied drawings on images."""
    return drawing_N4PP[:, :3] + image_NCPP * (1 - drawing_N4PP[:, 3:])
