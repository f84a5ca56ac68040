"""Random views of images: geometry, colour and style, batched, every draw from one generator.

The style operations remove texture and keep shape, so that a network cannot rely on photographic
texture alone. Random convolution: Xu et al., ICLR 2021. Statistics mixing: MixStyle, Zhou et al.,
ICLR 2021, here on pixels.

Shape suffixes: N images, C = 3 channels (RGB), H rows, W columns. Every image is float in [0, 1].
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

StyleOperation = Callable[[Tensor, torch.Generator], Tensor]


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draw float32 values uniformly from [low, high), on the generator's device."""
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def geometric_view(
    image_NCHW: Tensor, size_px: int, generator: torch.Generator, min_scale: float = 0.5
) -> Tensor:
    """Crop, stretch, rotate (up to 15 degrees) and flip each image at random; differentiable.

    Images may have any size, and what falls outside is reflected; views have the side `size_px`.
    The smallest area of a crop is `min_scale`, as a share of the image.
    """
    num = image_NCHW.shape[0]
    side_N = uniform((num,), min_scale, 1.0, generator).sqrt()
    aspect_N = torch.exp(uniform((num,), -0.25, 0.25, generator))  # as often wider as higher
    width_N = (side_N * aspect_N).clamp(max=1.1)
    height_N = (side_N / aspect_N).clamp(max=1.1)
    flip_N = torch.where(uniform((num,), 0, 1, generator) < 0.5, -1.0, 1.0)
    angle_N = uniform((num,), -0.26, 0.26, generator)  # radians: 15 degrees
    shift_x_N = uniform((num,), -1, 1, generator) * (1 - width_N).clamp(min=0)
    shift_y_N = uniform((num,), -1, 1, generator) * (1 - height_N).clamp(min=0)
    cos_N, sin_N = angle_N.cos(), angle_N.sin()
    row_x_N3 = torch.stack((width_N * cos_N * flip_N, -height_N * sin_N, shift_x_N), 1)
    row_y_N3 = torch.stack((width_N * sin_N * flip_N, height_N * cos_N, shift_y_N), 1)
    affine_N23 = torch.stack((row_x_N3, row_y_N3), 1).to(image_NCHW)
    grid = F.affine_grid(affine_N23, [num, 3, size_px, size_px], align_corners=False)
    return F.grid_sample(
        image_NCHW, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def colour_jitter(
    image_NCHW: Tensor, generator: torch.Generator, strength: float = 0.4, min_saturation: float = 0
) -> Tensor:
    """Change saturation, contrast, brightness and the colour balance of each image."""
    num = image_NCHW.shape[0]
    gain_N111 = uniform((num, 1, 1, 1), 1 - strength, 1 + strength, generator)
    balance_NC11 = uniform((num, 3, 1, 1), 1 - strength / 2, 1 + strength / 2, generator)
    contrast_N111 = uniform((num, 1, 1, 1), 1 - strength, 1 + strength, generator)
    saturation_N111 = uniform((num, 1, 1, 1), min_saturation, 1 + strength, generator)
    grey_N1HW = image_NCHW.mean(1, keepdim=True)
    image_NCHW = grey_N1HW + (image_NCHW - grey_N1HW) * saturation_N111
    mean_N111 = image_NCHW.mean((1, 2, 3), keepdim=True)
    image_NCHW = mean_N111 + (image_NCHW - mean_N111) * contrast_N111
    return (image_NCHW * gain_N111 * balance_NC11).clamp(0, 1)


def blur(image_NCHW: Tensor) -> Tensor:
    """Smooth with a 3 x 3 binomial kernel, edges replicated."""
    kernel_11HW = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).div(16)[None, None]
    weight = kernel_11HW.expand(3, 1, 3, 3).to(image_NCHW)
    return F.conv2d(F.pad(image_NCHW, (1, 1, 1, 1), mode="replicate"), weight, groups=3)


def _edge_strength(image_NCHW: Tensor) -> Tensor:
    """Length of the gradient over colours, relative to the image's strong edges; [N, 1, H, W]."""
    smooth_NCHW = blur(blur(image_NCHW))
    padded = F.pad(smooth_NCHW, (1, 1, 1, 1), mode="replicate")
    horizontal_NCHW = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    vertical_NCHW = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    strength_N1HW = (horizontal_NCHW.square() + vertical_NCHW.square()).sum(1, keepdim=True).sqrt()
    peak_N111 = strength_N1HW.flatten(1).quantile(0.97, dim=1)[:, None, None, None]
    return (strength_N1HW / peak_N111.clamp(min=0.02)).clamp(0, 1)  # a plain image has none


def sketch(image_NCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the edges as dark lines on white; a fifth of the pictures inverted."""
    num = image_NCHW.shape[0]
    threshold_N111 = uniform((num, 1, 1, 1), 0.15, 0.4, generator)
    line_N1HW = ((_edge_strength(image_NCHW) - threshold_N111) * 6).clamp(0, 1)
    inverted_N111 = torch.rand((num, 1, 1, 1), generator=generator) < 0.2
    return torch.where(inverted_N111, line_N1HW, 1 - line_N1HW).expand(-1, 3, -1, -1)


def cartoon(image_NCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Flatten the colours to a few levels and draw the edges dark."""
    num = image_NCHW.shape[0]
    levels_N111 = torch.randint(2, 6, (num, 1, 1, 1), generator=generator).float()
    smooth_NCHW = blur(blur(blur(image_NCHW)))
    grey_N1HW = smooth_NCHW.mean(1, keepdim=True)
    vivid_NCHW = (grey_N1HW + (smooth_NCHW - grey_N1HW) * 1.6).clamp(0, 1)
    flat_NCHW = (vivid_NCHW * levels_N111).round() / levels_N111
    line_N1HW = ((_edge_strength(image_NCHW) - 0.35) * 4).clamp(0, 1)
    drawn_N111 = (torch.rand((num, 1, 1, 1), generator=generator) < 0.7).float()
    return flat_NCHW * (1 - line_N1HW * drawn_N111)


def posterise(image_NCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Keep two to four brightness levels of each channel."""
    levels_N111 = torch.randint(1, 4, (image_NCHW.shape[0], 1, 1, 1), generator=generator).float()
    return (blur(image_NCHW) * levels_N111).round() / levels_N111


def random_convolution(image_NCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Filter all images with one random 1 x 1 to 5 x 5 kernel and restore each one's range."""
    side = int(torch.randint(0, 3, (1,), generator=generator)) * 2 + 1
    # so large that an output of as many independent inputs would have the variance of one
    kernel = torch.randn((3, 3, side, side), generator=generator) / (3**0.5 * side)
    filtered_NCHW = F.conv2d(
        F.pad(image_NCHW, (side // 2,) * 4, mode="replicate"), kernel.to(image_NCHW)
    )
    low_N111 = filtered_NCHW.amin((1, 2, 3), keepdim=True)
    high_N111 = filtered_NCHW.amax((1, 2, 3), keepdim=True)
    restored_NCHW = (filtered_NCHW - low_N111) / (high_N111 - low_N111).clamp(min=1e-3)
    mix_N111 = torch.rand((image_NCHW.shape[0], 1, 1, 1), generator=generator)
    return (mix_N111 * restored_NCHW + (1 - mix_N111) * image_NCHW).clamp(0, 1)


def mix_statistics(image_NCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Replace the channel means and deviations of each image by those of another in the batch."""
    order_N = torch.randperm(image_NCHW.shape[0], generator=generator)
    mean_NC11 = image_NCHW.mean((2, 3), keepdim=True)
    deviation_NC11 = image_NCHW.std((2, 3), keepdim=True).clamp(min=0.02)
    normal_NCHW = (image_NCHW - mean_NC11) / deviation_NC11
    return (normal_NCHW * deviation_NC11[order_N] + mean_NC11[order_N]).clamp(0, 1)


def grey(image_NCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Drop the colour; half of the images keep only two or three grey levels."""
    grey_N1HW = image_NCHW.mean(1, keepdim=True)
    num = image_NCHW.shape[0]
    threshold_N111 = uniform((num, 1, 1, 1), 0.35, 0.65, generator)
    ink_N1HW = ((blur(image_NCHW).mean(1, keepdim=True) - threshold_N111) * 12 + 0.5).clamp(0, 1)
    hard_N111 = torch.rand((num, 1, 1, 1), generator=generator) < 0.5
    return torch.where(hard_N111, ink_N1HW, grey_N1HW).expand(-1, 3, -1, -1)


STYLE_OPERATIONS: tuple[StyleOperation, ...]
STYLE_OPERATIONS = (sketch, cartoon, posterise, random_convolution, mix_statistics, grey)


def style_view(image_NCHW: Tensor, generator: torch.Generator, probability: float) -> Tensor:
    """Apply one random style operation to about `probability` of the images."""
    choice_N = torch.randint(0, len(STYLE_OPERATIONS), (image_NCHW.shape[0],), generator=generator)
    keep_N = torch.rand((image_NCHW.shape[0],), generator=generator) >= probability
    styled_NCHW = image_NCHW.clone()
    for index, operation in enumerate(STYLE_OPERATIONS):
        chosen_N = ((choice_N == index) & ~keep_N).nonzero().squeeze(1)
        if chosen_N.numel():
            styled_NCHW[chosen_N] = operation(image_NCHW[chosen_N], generator)
    return styled_NCHW


def random_view(
    image_NCHW: Tensor, size_px: int, generator: torch.Generator, style_probability: float = 0.5
) -> Tensor:
    """One view of every image: geometry, then style for some of them, then colour."""
    view_NCHW = geometric_view(image_NCHW, size_px, generator)
    view_NCHW = style_view(view_NCHW, generator, style_probability)
    return colour_jitter(view_NCHW, generator)
