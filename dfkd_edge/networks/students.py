"""Compact students: a timm network, a projection into the teacher's space, text vectors as head.

The head is the matrix of class text vectors (PromptKD): classes can be swapped without retraining.
The default student's network is EfficientNet-Lite1 with fewer blocks, which is registered with timm
here. Each block has the shape of a block of the embedded teacher's image tower, so that its weights
can be inherited (TinyCLIP, Wu et al., ICCV 2023). ReLU6, no squeeze-and-excite, symmetric padding:
every layer has an INT8 kernel.

Shape suffixes: N images, C = 3 channels, H rows, W columns, D embedding width, K classes,
F backbone features.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from timm.models import register_model
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

from dfkd_edge import assets
from dfkd_edge.artifacts import StudentArtifact
from dfkd_edge.config.settings import MINI, DistillationConfig
from dfkd_edge.errors import ArtifactError, ConfigError, EnvironmentLackingError
from dfkd_edge.networks.names import MINI_BACKBONE, require_student
from dfkd_edge.networks.pointwise import spare_strided_pointwise
from dfkd_edge.networks.unloadable import UNLOADABLE
from dfkd_edge.seeding import derived_seed

INPUT_MEAN = (0.5, 0.5, 0.5)
INPUT_STD = (0.25, 0.25, 0.25)
"""The same for every student: normalisation is inside the exported graph."""
STAGES = (
    ("ds", 1, 3, 1, 1, 16),
    ("ir", 1, 3, 2, 6, 24),
    ("ir", 2, 5, 2, 6, 40),
    ("ir", 2, 3, 2, 6, 80),
    ("ir", 2, 5, 1, 6, 112),
    ("ir", 2, 5, 2, 6, 192),
)
"""Block type, number of blocks, kernel, stride, expansion and output channels of each stage of
MINI_BACKBONE; the tower has 1, 3, 3, 4, 4 and 5 of these blocks, and one more stage."""
NUM_FEATURES = 640  # Channels behind its last convolution; the tower has 1,280


def efficientnet_lite1_slim(pretrained: bool = False, **options: Any) -> EfficientNet:
    """Build the backbone; `pretrained` is refused, `build_student` loads start weights."""
    if pretrained:
        raise ValueError(f"{MINI_BACKBONE} has no weights on a hub")
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
        norm_layer=partial(nn.BatchNorm2d, eps=1e-3),  # TensorFlow's, of which the tower's are
        **options,
    )


register_model(efficientnet_lite1_slim)


@dataclass(frozen=True)
class StudentEntry:
    """A student of the curated table."""

    timm_name: str
    image_size_px: int = 224
    license: str = "Apache-2.0"


STUDENTS: dict[str, StudentEntry] = {
    MINI: StudentEntry(MINI_BACKBONE, 96),
    "resnet18": StudentEntry("resnet18"),
    "mobilenetv2_100": StudentEntry("mobilenetv2_100"),
    "mobilenetv4_conv_small": StudentEntry("mobilenetv4_conv_small"),
    "mobilenetv3_small_100": StudentEntry("mobilenetv3_small_100"),
}


class Student(nn.Module):
    """Backbone and projection; the text head is a buffer."""

    head_KD: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, timm_name: str, image_size_px: int, head_KD: Tensor, logit_scale: float):
        """Build with random weights; logits compare with a teacher's of the same scale."""
        super().__init__()
        self.timm_name = timm_name
        self.image_size_px = image_size_px
        self.logit_scale = logit_scale
        self.backbone = build_backbone(timm_name, image_size_px)
        num_features = int(self.backbone.head_hidden_size)  # behind a head convolution, too
        self.projection = nn.Linear(num_features, head_KD.shape[1])
        self.register_buffer("head_KD", head_KD.clone())
        self.register_buffer("mean", torch.tensor(INPUT_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(INPUT_STD).view(1, 3, 1, 1), persistent=False)

    @property
    def num_parameters(self) -> int:
        """Parameters of backbone and projection; the head is a buffer."""
        return sum(p.numel() for p in self.parameters())

    def embed_images(self, image_NCHW: Tensor) -> Tensor:
        """Embed RGB images in [0, 1] of any size; returns unit embeddings [N, D], float32."""
        side = self.image_size_px
        if image_NCHW.shape[-2:] != (side, side):
            image_NCHW = F.interpolate(
                image_NCHW, size=(side, side), mode="bilinear", antialias=True, align_corners=False
            )
        normal_NCHW = (image_NCHW - self.mean) / self.std
        feature_NF = self.backbone(normal_NCHW.contiguous(memory_format=torch.channels_last))
        return F.normalize(self.projection(feature_NF).float(), dim=1)  # out of bfloat16 first

    def logits(self, embedding_ND: Tensor) -> Tensor:
        """Class logits [N, K] of unit embeddings."""
        return self.logit_scale * embedding_ND @ self.head_KD.T

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """Class logits [N, K] of RGB images in [0, 1]."""
        return self.logits(self.embed_images(image_NCHW))


def student_entry(name: str, image_size_px: int | None) -> StudentEntry:
    """Look a student up in the table, then among timm's names, at 224 px.

    Raises:
        ConfigError: no such student, with the nearest names.
    """
    if name not in STUDENTS:
        require_student(name)
    entry = STUDENTS.get(name, StudentEntry(name, license="see timm"))
    return replace(entry, image_size_px=image_size_px or entry.image_size_px)


def build_student(
    name: str, init: str, head_KD: Tensor, logit_scale: float, image_size_px: int | None = None
) -> Student:
    """Build a student of the table or of timm, at its own side unless another one is given.

    Start weights are `pretrained`, or `random` ones from torch's global generator.

    Raises:
        ConfigError: unknown name.
        EnvironmentLackingError: ImageNet weights cannot be fetched.
    """
    entry = student_entry(name, image_size_px)
    student = Student(entry.timm_name, entry.image_size_px, head_KD, logit_scale)
    if init == "pretrained" and name == MINI:
        weights = {k: v.float() for k, v in load_file(assets.START_WEIGHTS).items()}
        if weights["projection.weight"].shape[0] != head_KD.shape[1]:
            # another teacher's space: keep the backbone, learn the projection
            weights = {k: v for k, v in weights.items() if k.startswith("backbone.")}
        student.load_state_dict(weights, strict=False)  # the head is the class list's own
    elif init == "pretrained":
        try:
            source = build_backbone(entry.timm_name, entry.image_size_px, pretrained=True)
        except Exception as error:  # clients of networks share no base class
            raise EnvironmentLackingError(
                f"no pretrained weights for student '{name}' within reach",
                where="--student-init pretrained",
                hint=f"use --student {MINI}, --student-init random, or fetch them with timm first",
            ) from error
        student.backbone.load_state_dict(source.state_dict())
    spare_strided_pointwise(student.backbone)
    return student.to(head_KD.device).to(memory_format=torch.channels_last)


def build_backbone(timm_name: str, image_size_px: int, pretrained: bool = False) -> Any:
    """Build a network of timm for images of a side; attention over fixed places must know it."""
    known = timm.get_pretrained_cfg(timm_name)
    is_other = known and known.fixed_input_size and known.input_size[-1] != image_size_px
    side = {"img_size": image_size_px} if is_other else {}
    return timm.create_model(timm_name, pretrained=pretrained, num_classes=0, **side)


def require_side(config: DistillationConfig) -> None:
    """Try a student's side in shapes alone, before anything is made for it.

    Raises:
        ConfigError: the network takes no images of that side.
    """
    entry = student_entry(config.student, config.image_size_px)
    side_px = entry.image_size_px
    try:
        with torch.no_grad(), torch.device("meta"):
            build_backbone(entry.timm_name, side_px).eval()(torch.zeros(1, 3, side_px, side_px))
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"student '{config.student}' takes no images of {side_px} px: {why}",
            where="--imgsz",
            hint=f"its own side is {timm.get_pretrained_cfg(entry.timm_name).input_size[-1]} px",
        ) from error


def require_start(config: DistillationConfig, head_KD: Tensor, logit_scale: float) -> None:
    """Check that a student can be built and has start weights, before it is needed.

    Raises:
        ConfigError: the network takes no images of its side.
        EnvironmentLackingError: its pretrained weights cannot be fetched.
    """
    if config.student != MINI:  # ours is in this package
        require_side(config)
        with torch.random.fork_rng(devices=[]):  # timm draws weights from the global generator
            build_student(config.student, config.student_init, head_KD, logit_scale)


def build_start(
    name: str, init: str, head_KD: Tensor, logit_scale: float, image_size_px: int | None, seed: int
) -> Student:
    """Build the student of a run as it is before the first step."""
    torch.manual_seed(derived_seed(seed, "student"))  # timm draws weights from the global generator
    return build_student(name, init, head_KD, logit_scale, image_size_px)


def student_tensors(student: Student) -> bytes:
    """Serialise the weights, text head included, as safetensors."""
    state = student.state_dict()  # channels last in memory, which safetensors does not hold
    return save({name: value.detach().cpu().contiguous() for name, value in state.items()})


def load_student(artifact: StudentArtifact) -> Student:
    """Build the distilled student from its files, ready to classify.

    Raises:
        ArtifactError: the weights are missing, damaged or of another network.
    """
    settings = artifact.settings
    if not timm.is_model(settings.timm_name):  # `hf-hub:` and `local-dir:` lead out of the bundle
        raise ArtifactError(
            "student is no network of timm",
            where=str(artifact.folder / "student.json"),
            hint="distill it again",
        )
    try:
        head_KD = torch.zeros(len(settings.classes), settings.embed_dim)
        student = Student(settings.timm_name, settings.image_size_px, head_KD, settings.logit_scale)
        student.load_state_dict(load_file(artifact.weights))
    except UNLOADABLE as error:
        raise ArtifactError(
            "student cannot be read", where=str(artifact.weights), hint="distill it again"
        ) from error
    return student.eval().to(memory_format=torch.channels_last)
