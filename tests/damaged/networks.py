"""Weights and settings of networks from elsewhere: teachers, decoders, students.

The first byte of an input says what it is. A safetensors file is its header alone: whatever that
asks for, the tensors are zeros, so that an input stays small where a network is not.
"""

import functools
import json
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from diffusers import VQModel
from safetensors.torch import save_file

from dfkd_edge.artifacts import StudentArtifact
from dfkd_edge.class_names import ClassNames
from dfkd_edge.config.settings import SynthesisConfig, TeacherConfig
from dfkd_edge.networks.students import Student, load_student
from dfkd_edge.networks.teacher import load_teacher
from dfkd_edge.synthesis import decoders
from dfkd_edge.synthesis.decoders import load_latent_decoder
from tests.damaged import mutations
from tests.damaged.targets import CLASSES, Target
from tests.fixtures.synthesis import taming_layout
from tests.fixtures.typed import student_settings

decoders.CARD_SIDE_PX = 16  # Seconds less for each input; the same layers
MAX_DATA_BYTES = 32 << 20  # Of one file
TIMM_NAME = "test_efficientnet"
TOWER = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 1, "width": 32, "image_size": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}
PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3}


@functools.cache
def whole_files() -> dict[str, bytes]:
    """Return small networks of the real classes, as they are saved."""
    with tempfile.TemporaryDirectory() as name, torch.random.fork_rng():
        folder = Path(name)
        torch.manual_seed(0)
        model = VQModel(
            down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
            up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
            block_out_channels=(32, 32),
            layers_per_block=1,
            latent_channels=4,
            vq_embed_dim=4,
            num_vq_embeddings=16,
        )
        model.save_pretrained(folder / "vq")
        save_file(taming_layout(model), folder / "taming.safetensors")
        settings = {"model_cfg": TOWER, "preprocess_cfg": PREPROCESS}
        (folder / "open_clip_config.json").write_text(json.dumps(settings), encoding="utf-8")
        clip = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        save_file(dict(clip.state_dict()), folder / "clip.safetensors")
        head_KD = torch.zeros(len(CLASSES), 16)
        student = Student(TIMM_NAME, 32, head_KD, 10.0)
        save_file(dict(student.state_dict()), folder / "student.safetensors")
        artifact = StudentArtifact(
            folder,
            student_settings(timm_name=TIMM_NAME, image_size_px=32, classes=CLASSES, embed_dim=16),
        )
        artifact.save_settings()
        torch.save({"state_dict": {"a": torch.ones(2, 3), "b": torch.zeros(1)}}, folder / "a.ckpt")
        return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put(path: Path, content: bytes) -> None:
    """Write a file; a header of safetensors with the zeros that it asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".safetensors":
        path.write_bytes(content)
        return
    try:
        entries = [entry for entry in json.loads(content).values() if isinstance(entry, dict)]
        size = max((entry["data_offsets"][1] for entry in entries if "dtype" in entry), default=0)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        size = 0
    is_size = isinstance(size, int) and 0 <= size <= MAX_DATA_BYTES
    with path.open("wb") as stream:
        stream.write(len(content).to_bytes(8, "little") + content)
        stream.truncate(8 + len(content) + (size if is_size else 0))


def _decode(name: str) -> None:
    here: Any = SimpleNamespace(device="cpu", image_size_px=32)  # all that is asked of a teacher
    decoder = load_latent_decoder(SynthesisConfig(decoder=name), here)
    side = decoder.latent_shape[-1]
    assert decoder.decode(decoder.start(1, side, torch.Generator())).shape == (1, 3, 32, 32)


def _teach(folder: Path) -> None:
    names = ClassNames(CLASSES, (None,) * len(CLASSES))
    teacher = load_teacher(TeacherConfig(name=str(folder), templates=("a {}",)), names)
    side_px = teacher.image_size_px
    assert teacher.embed_images(torch.zeros(1, 3, side_px, side_px)).shape[0] == 1


def _classify(folder: Path) -> None:
    student = load_student(StudentArtifact.load(folder))
    student(torch.zeros(1, 3, student.image_size_px, student.image_size_px))


KINDS: tuple[tuple[str, str, Callable[[Path], object]], ...] = (
    ("last.safetensors", "taming.safetensors", lambda p: _decode(str(p / "last.safetensors"))),
    ("last.ckpt", "a.ckpt", lambda p: _decode(str(p / "last.ckpt"))),
    ("config.json", "config.json", lambda p: _decode(str(p))),
    ("diffusion_pytorch_model.safetensors",) * 2 + (lambda p: _decode(str(p)),),
    ("open_clip_config.json",) * 2 + (_teach,),
    ("open_clip_model.safetensors", "clip.safetensors", _teach),
    ("open_clip_pytorch_model.bin", "a.ckpt", _teach),
    ("student.json",) * 2 + (_classify,),
    ("student.safetensors",) * 2 + (_classify,),
)
"""Which file is damaged, which whole one it is made of, and who reads its folder."""
BESIDE = {
    "config.json": "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors": "config.json",
    "open_clip_config.json": "open_clip_model.safetensors",
    "open_clip_model.safetensors": "open_clip_config.json",
    "open_clip_pytorch_model.bin": "open_clip_config.json",
    "student.json": "student.safetensors",
    "student.safetensors": "student.json",
}
"""The whole file that lies beside a damaged one."""
NAMES = {"open_clip_model.safetensors": "clip.safetensors"}


def _small(name: str) -> bytes:
    raw = whole_files()[name]
    is_header = name.endswith(".safetensors")
    return raw[8 : 8 + int.from_bytes(raw[:8], "little")] if is_header else raw


def read_network(content: bytes, folder: Path) -> None:
    """Load and use what was damaged."""
    name, _, use = KINDS[(content[:1] or b"\0")[0] % len(KINDS)]
    put(folder / name, content[1:])
    if name in BESIDE:
        put(folder / BESIDE[name], _small(NAMES.get(BESIDE[name], BESIDE[name])))
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        use(folder)


def networks(folder: Path) -> Iterator[bytes]:
    """Every whole file."""
    for number, (_, whole, _) in enumerate(KINDS):
        yield bytes([number]) + _small(whole)


def damage_network(content: bytes, rng: random.Random) -> bytes:
    """Damage JSON or an archive in its form."""
    is_archive = content[:2] == b"PK"
    return (mutations.damage_archive if is_archive else mutations.damage_json)(content, rng)


TARGETS = (Target("networks", read_network, networks, mutations.in_part(damage_network)),)
