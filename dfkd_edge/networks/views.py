"""Random views of images: geometry, colour and style, batched.

A view of the student's is a function of its image and its key alone; other callers draw from a
generator. The style operations remove texture and keep shape, so that a network cannot rely on
photographic texture alone. Random convolution: Xu et al., ICLR 2021. Statistics mixing: MixStyle,
Zhou et al., ICLR 2021, here on pixels.

Shape suffixes: N images, C = 3 channels (RGB), H rows, W columns, P random numbers of an image,
M donors of statistics. Every image is float in [0, 1].
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.networks.draws import drawn
from dfkd_edge.networks.transfer import sent
from dfkd_edge.networks.view_keys import luck, normal_luck

NUM_GEOMETRY, NUM_COLOUR = 6, 6
STYLE = NUM_GEOMETRY + NUM_COLOUR  # First numbers of a key that choose its style
OF_STYLE = STYLE + 2  # And the first of those that the style takes
StyleOperation = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(image_NCHW, key_N, donor_M23) -> images, each made of its own row alone."""


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draw float32 values uniformly from [low, high), on the generator's device."""
    return low + (high - low) * drawn(torch.rand, shape, generator)


def between(luck_N: Tensor, low: float, high: float) -> Tensor:
    """Spread numbers in [0, 1) over [low, high); one an image becomes [N, 1, 1, 1]."""
    return (low + (high - low) * luck_N)[:, None, None, None]


def chosen(luck_N: Tensor, num: int) -> Tensor:
    """Choose among `num` evenly by numbers in [0, 1)."""
    return (luck_N * num).long().clamp(max=num - 1)  # a float below 1 times num may round to num


def geometric_view(
    image_NCHW: Tensor, size_px: int, generator: torch.Generator, min_scale: float = 0.5
) -> Tensor:
    """Crop, stretch, rotate (up to 15 degrees) and flip each image at random; differentiable.

    Images may have any size, and what falls outside is reflected; views have the side `size_px`.
    The smallest area of a crop is `min_scale`, as a share of the image.
    """
    num = image_NCHW.shape[0]
    luck_NP = torch.stack([uniform((num,), 0, 1, generator) for _ in range(NUM_GEOMETRY)], 1)
    return moved(image_NCHW, size_px, luck_NP, min_scale)


def moved(image_NCHW: Tensor, size_px: int, luck_NP: Tensor, min_scale: float = 0.5) -> Tensor:
    """Make the geometric views of numbers in [0, 1)."""
    num = image_NCHW.shape[0]
    side, aspect, flip, angle, shift_x, shift_y = luck_NP.unbind(1)
    side_N = (min_scale + (1.0 - min_scale) * side).sqrt()
    aspect_N = torch.exp(-0.25 + 0.5 * aspect)  # as often wider as higher
    width_N = (side_N * aspect_N).clamp(max=1.1)
    height_N = (side_N / aspect_N).clamp(max=1.1)
    flip_N = torch.where(flip < 0.5, -1.0, 1.0)
    angle_N = -0.26 + 0.52 * angle  # radians: 15 degrees
    shift_x_N = (2 * shift_x - 1) * (1 - width_N).clamp(min=0)
    shift_y_N = (2 * shift_y - 1) * (1 - height_N).clamp(min=0)
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
    gain_N1, balance_NC, contrast_N1, saturation_N1 = (
        uniform((num, width), 0, 1, generator) for width in (1, 3, 1, 1)
    )
    luck_NP = torch.cat((gain_N1, balance_NC, contrast_N1, saturation_N1), 1)
    return recoloured(image_NCHW, luck_NP, strength, min_saturation)


def recoloured(
    image_NCHW: Tensor, luck_NP: Tensor, strength: float = 0.4, min_saturation: float = 0
) -> Tensor:
    """Change the colours by numbers in [0, 1)."""
    gain_N111 = between(luck_NP[:, 0], 1 - strength, 1 + strength)
    balance_NC11 = (1 - strength / 2 + strength * luck_NP[:, 1:4])[:, :, None, None]
    contrast_N111 = between(luck_NP[:, 4], 1 - strength, 1 + strength)
    saturation_N111 = between(luck_NP[:, 5], min_saturation, 1 + strength)
    grey_N1HW = image_NCHW.mean(1, keepdim=True)
    image_NCHW = grey_N1HW + (image_NCHW - grey_N1HW) * saturation_N111
    mean_N111 = image_NCHW.mean((1, 2, 3), keepdim=True)
    image_NCHW = mean_N111 + (image_NCHW - mean_N111) * contrast_N111
    return (image_NCHW * gain_N111 * balance_NC11).clamp(0, 1)


def blur(image_NCHW: Tensor) -> Tensor:
    """Smooth with a 3 x 3 binomial kernel, edges replicated."""
    padded = F.pad(image_NCHW, (1, 1, 1, 1), mode="replicate")
    down = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    return (down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]) / 16


def _edge_strength(image_NCHW: Tensor) -> Tensor:
    """Length of the gradient over colours, relative to the image's strong edges; [N, 1, H, W]."""
    smooth_NCHW = blur(blur(image_NCHW))
    padded = F.pad(smooth_NCHW, (1, 1, 1, 1), mode="replicate")
    horizontal_NCHW = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    vertical_NCHW = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    strength_N1HW = (horizontal_NCHW.square() + vertical_NCHW.square()).sum(1, keepdim=True).sqrt()
    value_NV = strength_N1HW.flatten(1)
    peak_N = value_NV.kthvalue(round(0.97 * value_NV.shape[1]), dim=1).values  # sorts nothing
    return (strength_N1HW / peak_N[:, None, None, None].clamp(min=0.02)).clamp(0, 1)  # plain: none


def sketch(image_NCHW: Tensor, key_N: Tensor, _donor_M23: Tensor) -> Tensor:
    """Draw the edges as dark lines on white; a fifth of the pictures inverted."""
    threshold, inverted = luck(key_N, OF_STYLE, 2).unbind(1)
    line_N1HW = ((_edge_strength(image_NCHW) - between(threshold, 0.15, 0.4)) * 6).clamp(0, 1)
    inverted_N111 = between(inverted, 0, 1) < 0.2
    return torch.where(inverted_N111, line_N1HW, 1 - line_N1HW).expand(-1, 3, -1, -1)


def cartoon(image_NCHW: Tensor, key_N: Tensor, _donor_M23: Tensor) -> Tensor:
    """Flatten the colours to a few levels and draw the edges dark."""
    levels, drawn = luck(key_N, OF_STYLE, 2).unbind(1)
    levels_N111 = between(levels, 2, 6).floor()
    smooth_NCHW = blur(blur(blur(image_NCHW)))
    grey_N1HW = smooth_NCHW.mean(1, keepdim=True)
    vivid_NCHW = (grey_N1HW + (smooth_NCHW - grey_N1HW) * 1.6).clamp(0, 1)
    flat_NCHW = (vivid_NCHW * levels_N111).round() / levels_N111
    line_N1HW = ((_edge_strength(image_NCHW) - 0.35) * 4).clamp(0, 1)
    return flat_NCHW * (1 - line_N1HW * (between(drawn, 0, 1) < 0.7).float())


def posterise(image_NCHW: Tensor, key_N: Tensor, _donor_M23: Tensor) -> Tensor:
    """Keep two to four brightness levels of each channel."""
    levels_N111 = between(luck(key_N, OF_STYLE, 1)[:, 0], 1, 4).floor()
    return (blur(image_NCHW) * levels_N111).round() / levels_N111


def random_convolution(
    image_NCHW: Tensor, key_N: Tensor, _donor_M23: Tensor, side: int = 3
) -> Tensor:
    """Filter each image with a random kernel of its own and restore its range."""
    num, _, height, width = image_NCHW.shape
    kernel_NP = normal_luck(key_N, OF_STYLE + 1, 9 * side**2)
    # so large that an output of as many independent inputs would have the variance of one
    kernel = kernel_NP.view(3 * num, 3, side, side) / (3**0.5 * side)
    padded = F.pad(image_NCHW, (side // 2,) * 4, mode="replicate")
    joined = padded.reshape(1, 3 * num, *padded.shape[2:])  # the images lie as groups side by side
    filtered_NCHW = F.conv2d(joined, kernel.to(joined), groups=num).view(num, 3, height, width)
    low_N111 = filtered_NCHW.amin((1, 2, 3), keepdim=True)
    high_N111 = filtered_NCHW.amax((1, 2, 3), keepdim=True)
    restored_NCHW = (filtered_NCHW - low_N111) / (high_N111 - low_N111).clamp(min=1e-3)
    mix_N111 = between(luck(key_N, OF_STYLE, 1)[:, 0], 0, 1)
    return (mix_N111 * restored_NCHW + (1 - mix_N111) * image_NCHW).clamp(0, 1)


def channel_statistics(image_NCHW: Tensor) -> Tensor:
    """Mean and deviation of each channel, [N, 2, C]."""
    deviation_NC = image_NCHW.std((2, 3)).clamp(min=0.02)
    return torch.stack((image_NCHW.mean((2, 3)), deviation_NC), 1)


def mix_statistics(image_NCHW: Tensor, key_N: Tensor, donor_M23: Tensor) -> Tensor:
    """Replace the channel means and deviations of each image by those of a donor."""
    donor_N = chosen(luck(key_N, OF_STYLE, 1)[:, 0], len(donor_M23))
    mean_NC11, deviation_NC11 = channel_statistics(image_NCHW)[..., None, None].unbind(1)
    given_mean, given_deviation = donor_M23[donor_N][..., None, None].unbind(1)
    normal_NCHW = (image_NCHW - mean_NC11) / deviation_NC11
    return (normal_NCHW * given_deviation + given_mean).clamp(0, 1)


def grey(image_NCHW: Tensor, key_N: Tensor, _donor_M23: Tensor) -> Tensor:
    """Drop the colour; half of the images keep only two or three grey levels."""
    grey_N1HW = image_NCHW.mean(1, keepdim=True)
    threshold, hard = luck(key_N, OF_STYLE, 2).unbind(1)
    ink_N1HW = blur(image_NCHW).mean(1, keepdim=True) - between(threshold, 0.35, 0.65)
    ink_N1HW = (ink_N1HW * 12 + 0.5).clamp(0, 1)
    return torch.where(between(hard, 0, 1) < 0.5, ink_N1HW, grey_N1HW).expand(-1, 3, -1, -1)


STYLE_OPERATIONS: tuple[tuple[StyleOperation, int], ...]
STYLE_OPERATIONS = (
    (sketch, 3),
    (cartoon, 3),
    (posterise, 3),
    (partial(random_convolution, side=1), 1),
    (partial(random_convolution, side=3), 1),
    (partial(random_convolution, side=5), 1),
    (mix_statistics, 3),
    (grey, 3),
)
"""And how often each is chosen, relative to the others."""
OPERATION_OF_CHANCE = torch.tensor(
    [number for number, (_, weight) in enumerate(STYLE_OPERATIONS) for _ in range(weight)]
)


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """The views of some images: their keys, and what the host knows of them beforehand.

    Which images take an operation decides shapes: found on the device, the host would wait for it.
    """

    key_N: Tensor
    order_N: Tensor  # Rows in the order of their operations; those of none come last
    counts: tuple[int, ...]  # Rows of each operation


def plan_views(key_N: Tensor, style_probability: float | Tensor, device: torch.device) -> ViewPlan:
    """Plan the views of keys that lie on the host.

    About `style_probability` of them are styled; it may be one number an image.
    """
    chance_N, operation_N = luck(key_N, STYLE, 2).unbind(1)
    operation_N = OPERATION_OF_CHANCE[chosen(operation_N, len(OPERATION_OF_CHANCE))]
    operation_N = torch.where(chance_N < style_probability, operation_N, len(STYLE_OPERATIONS))
    counts = operation_N.bincount(minlength=len(STYLE_OPERATIONS))[: len(STYLE_OPERATIONS)]
    both_2N = torch.stack((key_N, operation_N.argsort(stable=True)))
    key_N, order_N = sent(both_2N, device).unbind()
    return ViewPlan(key_N, order_N, tuple(counts.tolist()))


def style_view(image_NCHW: Tensor, plan: ViewPlan, donor_M23: Tensor) -> Tensor:
    """Apply its style operation to each image that has one."""
    styled_NCHW = image_NCHW.clone()
    ends = tuple(accumulate(plan.counts))
    for (operation, _), count, end in zip(STYLE_OPERATIONS, plan.counts, ends, strict=True):
        if count:
            row_N = plan.order_N[end - count : end]
            made_NCHW = operation(image_NCHW[row_N], plan.key_N[row_N], donor_M23)
            styled_NCHW.index_copy_(0, row_N, made_NCHW)
    return styled_NCHW


@dataclass(frozen=True, slots=True)
class Views:
    """Makes views, each a function of its image and its key: geometry, style for some, colour."""

    size_px: int
    style_probability: float
    donor_M23: Tensor  # Channel statistics that a view can take on, where the images are

    def plan(self, key_N: Tensor) -> ViewPlan:
        """Plan the views of keys on the host; calls need no more of it."""
        return plan_views(key_N, self.style_probability, self.donor_M23.device)

    def __call__(self, image_NCHW: Tensor, plan: ViewPlan) -> Tensor:
        """Make a view of each image."""
        luck_NP = luck(plan.key_N, 0, NUM_GEOMETRY + NUM_COLOUR)
        view_NCHW = moved(image_NCHW, self.size_px, luck_NP[:, :NUM_GEOMETRY])
        view_NCHW = style_view(view_NCHW, plan, self.donor_M23)
        return recoloured(view_NCHW, luck_NP[:, NUM_GEOMETRY:])
