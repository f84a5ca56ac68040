"""Compact students: a timm network, a projection into the teacher's space, text vectors as head.

The head is the matrix of class text vectors (PromptKD): classes can be swapped without retraining.

Shape suffixes: N images, C = 3 channels, H rows, W columns, D embedding width, K classes,
F backbone features.
"""

from dataclasses import dataclass

import timm
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dfkd_edge import assets
from dfkd_edge.artifacts import StudentArtifact
from dfkd_edge.config.settings import MINI, DistillationConfig
from dfkd_edge.errors import ArtifactError, EnvironmentLackingError
from dfkd_edge.networks import efficientnet_lite_slim
from dfkd_edge.networks.names import require_student
from dfkd_edge.seeding import derived_seed

INPUT_MEAN = (0.5, 0.5, 0.5)
INPUT_STD = (0.25, 0.25, 0.25)
"""The same for every student: normalisation is inside the exported graph."""


@dataclass(frozen=True)
class StudentEntry:
    """A student of the curated table."""

    timm_name: str
    image_size_px: int
    license: str


STUDENTS: dict[str, StudentEntry] = {
    MINI: StudentEntry(efficientnet_lite_slim.NAME, 96, "Apache-2.0"),
    "resnet18": StudentEntry("resnet18", 224, "Apache-2.0"),
    "mobilenetv2_100": StudentEntry("mobilenetv2_100", 224, "Apache-2.0"),
    "mobilenetv4_conv_small": StudentEntry("mobilenetv4_conv_small", 224, "Apache-2.0"),
    "mobilenetv3_small_100": StudentEntry("mobilenetv3_small_100", 224, "Apache-2.0"),
}


class Student(nn.Module):
    """Backbone and projection; the text head is a buffer."""

    head_KD: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, timm_name: str, image_size_px: int, head_KD: Tensor, logit_scale: float):
        """Build with random weights.

        Args:
            timm_name: backbone.
            image_size_px: side of the input; other sizes are resized to it.
            head_KD: unit class text vectors.
            logit_scale: the teacher's, so that logits compare.
        """
        super().__init__()
        self.timm_name = timm_name
        self.image_size_px = image_size_px
        self.logit_scale = logit_scale
        self.backbone = timm.create_model(timm_name, pretrained=False, num_classes=0)
        num_features = int(self.backbone.head_hidden_size)
        self.projection = nn.Linear(num_features, head_KD.shape[1])
        self.register_buffer("head_KD", head_KD.clone())
        self.register_buffer("mean", torch.tensor(INPUT_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(INPUT_STD).view(1, 3, 1, 1), persistent=False)

    @property
    def num_parameters(self) -> int:
        """Parameters of backbone and projection; the head is a buffer."""
        return sum(p.numel() for p in self.parameters())

    def embed(self, image_NCHW: Tensor) -> Tensor:
        """Embed RGB images in [0, 1]; returns unit embeddings [N, D], float32."""
        side = self.image_size_px
        if image_NCHW.shape[-2:] != (side, side):
            image_NCHW = F.interpolate(
                image_NCHW, size=(side, side), mode="bilinear", antialias=True, align_corners=False
            )
        normal_NCHW = (image_NCHW - self.mean) / self.std
        feature_NF = self.backbone(normal_NCHW.contiguous(memory_format=torch.channels_last))
        return F.normalize(self.projection(feature_NF).float(), dim=1)

    def logits(self, embedding_ND: Tensor) -> Tensor:
        """Class logits [N, K] of unit embeddings."""
        return self.logit_scale * embedding_ND @ self.head_KD.T

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """Class logits [N, K] of RGB images in [0, 1]."""
        return self.logits(self.embed(image_NCHW))


def student_entry(name: str, image_size_px: int | None) -> StudentEntry:
    """Look a student up in the table, then among timm's names, at 224 px.

    Raises:
        ConfigError: no such student, with the nearest names.
    """
    entry = STUDENTS.get(name)
    if entry is None:
        require_student(name)
        entry = StudentEntry(name, 224, "see timm")
    if image_size_px:
        entry = StudentEntry(entry.timm_name, image_size_px, entry.license)
    return entry


def build_student(
    name: str, init: str, head_KD: Tensor, logit_scale: float, image_size_px: int | None = None
) -> Student:
    """Build a student and set its start weights.

    Args:
        name: a name of the table or of timm.
        init: `pretrained` or `random` (drawn from torch's global generator).
        head_KD: unit class text vectors.
        logit_scale: the teacher's.
        image_size_px: None takes the entry's.

    Raises:
        ConfigError: unknown name.
        EnvironmentLackingError: ImageNet weights cannot be fetched.
    """
    entry = student_entry(name, image_size_px)
    student = Student(entry.timm_name, entry.image_size_px, head_KD, logit_scale)
    if init == "pretrained" and name == MINI:
        weights = {k: v.float() for k, v in load_file(assets.START_WEIGHTS).items()}
        if weights["projection.weight"].shape[0] == head_KD.shape[1]:
            student.load_state_dict(weights, strict=False)
        else:  # another teacher's space: keep the backbone, learn the projection
            kept = {k: v for k, v in weights.items() if k.startswith("backbone.")}
            student.load_state_dict(kept, strict=False)
    elif init == "pretrained":
        try:
            source = timm.create_model(entry.timm_name, pretrained=True, num_classes=0)
        except (OSError, RuntimeError, ValueError) as error:
            raise EnvironmentLackingError(
                f"no pretrained weights for student '{name}' within reach",
                where="--student-init pretrained",
                hint=f"use --student {MINI}, --student-init random, or fetch them with timm first",
            ) from error
        student.backbone.load_state_dict(source.state_dict())
    return student.to(memory_format=torch.channels_last)


def require_start(config: DistillationConfig, head_KD: Tensor, logit_scale: float) -> None:
    """Check that a student can be built and has start weights, before it is needed.

    Raises:
        EnvironmentLackingError: its pretrained weights cannot be fetched.
    """
    if config.student != MINI:  # ours is in this package
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
    state = {
        name: value.detach().cpu().contiguous() for name, value in student.state_dict().items()
    }
    return save(state)


def load_student(artifact: StudentArtifact) -> Student:
    """Build the distilled student from its files, ready to classify.

    Raises:
        ArtifactError: the weights are missing, damaged or of another network.
    """
    settings = artifact.settings
    try:
        head_KD = torch.zeros(len(settings.classes), settings.embed_dim)
        student = Student(settings.timm_name, settings.image_size_px, head_KD, settings.logit_scale)
        student.load_state_dict(load_file(artifact.weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ArtifactError(
            "student cannot be read", where=str(artifact.weights), hint="distill it again"
        ) from error
    return student.eval().to(memory_format=torch.channels_last)
