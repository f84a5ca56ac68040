"""The teacher's image tower in ONNX Runtime: a frozen network that a CPU sees many views through.

It takes fewer CPU seconds there than eager torch with folded norms (examples/measurements), and has
no gradients. The graph lies in memory and is traced anew by every run, which costs some seconds.
"""

import io
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from dfkd_edge.networks.mixed_precision import compute_type
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.networks.tuning import Embed
from dfkd_edge.runtime.plain_text import printable

MIN_VIEWS = 3_000  # Fewer do not pay for the trace (ours)
MAX_PARAMETERS = 64_000_000  # A graph copies the weights: 256 MB at most
OPSET = 18
LARGEST_ERROR = 1e-3  # Of a unit embedding's numbers; the order of sums alone gives 1e-6
SLOWER = "  the teacher sees without ONNX Runtime, which is slower: "
Encode = Callable[[Tensor], Tensor]
"""Embeds normalised images, as a teacher's `encode_image` does."""


def eyes_for(teacher: Teacher, num_views: int, tell: Callable[[str], None]) -> Embed:
    """Choose what sees so many views without gradients: ONNX Runtime, or the teacher itself.

    Args:
        teacher: frozen.
        num_views: of the whole training, whoever of several ranks sees them and whenever it goes
            on: all must choose alike.
        tell: hears why it is the teacher where ONNX Runtime should do.
    """
    in_float = teacher.device.type == "cpu" and compute_type("cpu") == torch.float32
    if not in_float or num_views < MIN_VIEWS or teacher.num_image_parameters > MAX_PARAMETERS:
        return teacher.embed_images
    try:
        encode = frozen_encode(teacher)
    except Exception as error:  # tracers and runtimes share no class of errors
        tell(f"{SLOWER}{printable(str(error))}")
        return teacher.embed_images

    def embed(image_NCHW: Tensor) -> Tensor:
        return teacher.embed_images(image_NCHW, encode)

    difference = _difference(teacher, embed)
    if difference <= LARGEST_ERROR:
        return embed
    tell(f"{SLOWER}there it differs by {difference:.2g}")
    return teacher.embed_images


def _difference(teacher: Teacher, embed: Embed) -> float:
    """Return the largest one between numbers of unit embeddings; NaN where there is none."""
    image_NCHW = torch.rand((3, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return float((embed(image_NCHW) - teacher.embed_images(image_NCHW)).abs().max())


def frozen_encode(teacher: Teacher) -> Encode:
    """Trace the image tower and open it in ONNX Runtime, with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others want the core
    options.enable_cpu_mem_arena = False  # its memory comes from what the process keeps
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        _traced(teacher), options, providers=["CPUExecutionProvider"]
    )

    def encode(image_NCHW: Tensor) -> Tensor:
        (embedding_ND,) = session.run(None, {"image": image_NCHW.contiguous().numpy()})
        return torch.from_numpy(embedding_ND)

    return encode


class _Tower(torch.nn.Module):
    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.model = teacher.model

    def forward(self, image_NCHW: Tensor) -> Tensor:
        embedding_ND: Tensor = self.model.encode_image(image_NCHW)  # type: ignore[operator]
        return embedding_ND


def _traced(teacher: Teacher) -> bytes:
    side, file = teacher.image_size_px, io.BytesIO()
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        torch.onnx.export(
            _Tower(teacher).eval(),
            (torch.zeros(2, 3, side, side),),
            file,  # type: ignore[arg-type]  # its stubs forget file objects
            input_names=["image"],
            output_names=["embedding"],
            dynamic_axes={"image": {0: "N"}, "embedding": {0: "N"}},
            opset_version=OPSET,
            dynamo=False,
        )
    return file.getvalue()
