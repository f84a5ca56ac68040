"""EfficientNet-Lite1 with fewer blocks, registered with timm: the default student's backbone.

Each block has the shape of a block of the embedded teacher's image tower, so that its weights can
be inherited (TinyCLIP, Wu et al., ICCV 2023). ReLU6, no squeeze-and-excite, symmetric padding:
every layer has an INT8 kernel.
"""

from functools import partial
from typing import Any

from timm.models import register_model
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from torch import nn

NAME = "efficientnet_lite1_slim"
STAGES = (
    ("ds", 1, 3, 1, 1, 16),
    ("ir", 1, 3, 2, 6, 24),
    ("ir", 2, 5, 2, 6, 40),
    ("ir", 2, 3, 2, 6, 80),
    ("ir", 2, 5, 1, 6, 112),
    ("ir", 2, 5, 2, 6, 192),
)
"""Block type, number of blocks, kernel, stride, expansion and output channels of each stage; the
tower has 1, 3, 3, 4, 4 and 5 of these blocks, and one more stage."""
NUM_FEATURES = 640  # Channels behind the last convolution; the tower has 1,280


def efficientnet_lite1_slim(pretrained: bool = False, **options: Any) -> EfficientNet:
    """Build the network; `pretrained` is refused, `students.build_student` loads start weights."""
    if pretrained:
        raise ValueError(f"{NAME} has no weights on a hub")
    for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        options.pop(name, None)  # timm passes them to every builder; the class refuses them
    return EfficientNet(
        block_args=decode_arch_def(
            [[f"{kind}_r{n}_k{k}_s{s}_e{e}_c{c}"] for kind, n, k, s, e, c in STAGES]
        ),
        num_features=NUM_FEATURES,
        stem_size=32,
        fix_stem=True,
        act_layer=nn.ReLU6,
        norm_layer=partial(nn.BatchNorm2d, eps=1e-3),
        **options,
    )


register_model(efficientnet_lite1_slim)
