"""What the stages keep in an accelerator's memory, whether one is here or not.

Passes are counted on the meta device in float32, of which mixed precision keeps about half.
`tests/test_fake_device.py` holds the sums to what a device without memory counts.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.distillation.batches import POOL_SHARE
from dfkd_edge.networks.memory import measured_need
from dfkd_edge.networks.students import Student
from dfkd_edge.networks.teacher import TEXTS_TOGETHER
from dfkd_edge.networks.transfer import free_bytes
from dfkd_edge.prompts.style_slot import TRAINED_TOGETHER
from dfkd_edge.validation.ladder import BATCH_SIZE

USUAL_CONTEXT = 77  # Tokens, of a text tower that does not tell: CLIP's
FUSED_SHARE = 0.8
"""Of what a text keeps on the meta device, where attention is not fused as on a card; counted in
the text towers of ViT-B/32 and ViT-L/14."""
VIEW_BYTES = 4 + 1 + 1
"""Of each value of a view: float32, and bytes of the images of this step and of the next one."""


class CardNeeds:
    """Bytes of the stages that draw no images, the teacher's weights included."""

    def __init__(self, config: PipelineConfig, teacher: Any, student: Student) -> None:
        """Take a teacher of the meta device, and a student of any."""
        self.config, self.teacher = config, teacher.requires_grad_(False)
        self.student = copy.deepcopy(student).to("meta").eval()  # BatchNorm takes no single image
        self.student_bytes = 4 * student.num_parameters
        self.teacher_bytes = frozen_bytes(teacher)
        side_px = student.image_size_px
        self._shape = (3, side_px, side_px)

    def prompts(self) -> int:
        """Texts with gradients of their styles, or as many more without.

        A step keeps the styles alone, and paired with classes, up to as many as a part has.
        """
        config = self.config.prompts
        num = 2 * min(config.num_styles, TRAINED_TOGETHER) if config.method == "contrastive" else 0
        learning = num * text_bytes(self.teacher, with_gradients=True)
        looking = TEXTS_TOGETHER * text_bytes(self.teacher, with_gradients=False)
        return self.teacher_bytes + round(FUSED_SHARE * max(learning, looking))

    def learning(self, pool_bytes: int, device: str) -> int:
        """The student's weights, gradients, moments and a batch, beside the pool where it fits.

        Without a card to ask, the pool does.
        """
        student = self.student

        def attempt(num: int) -> None:
            student.embed_images(_images(num, self._shape)).sum().backward()
            student.zero_grad()

        of_view = measured_need(attempt, "meta").of_image // 2
        of_view += VIEW_BYTES * 3 * max(student.image_size_px, side_of(self.teacher)) ** 2
        # float32 weights, gradients and both moments of AdamW, and weights in the compute type
        kept = self.teacher_bytes + (4 * 4 + 2) * student.num_parameters
        kept += self.config.distillation.batch_size * of_view
        has_card = torch.device(device).type != "cpu"
        fits = not has_card or pool_bytes <= POOL_SHARE * free_bytes(torch.device(device))
        return kept + (pool_bytes if fits else 0)

    def evaluation(self) -> int:
        """The student before and after it learnt, and the larger of two passes of a batch."""
        student, side_px = self.student, side_of(self.teacher)

        @torch.no_grad()
        def judge(num: int) -> None:
            student.embed_images(_images(num, self._shape))

        @torch.no_grad()
        def look(num: int) -> None:
            self.teacher.encode_image(_images(num, (3, side_px, side_px)))

        of_passes = (measured_need(judge, "meta").of_image, measured_need(look, "meta").of_image)
        of_image = max(of_passes[0], of_passes[1] // 2)
        return self.teacher_bytes + 2 * self.student_bytes + BATCH_SIZE * of_image


def _images(num: int, shape: tuple[int, ...]) -> Tensor:
    return torch.zeros(num, *shape, device="meta")


def side_of(teacher: Any) -> int:
    """Side of a teacher's images in pixels."""
    size = teacher.visual.image_size
    return int(size if isinstance(size, int) else size[0])


def frozen_bytes(teacher: Any) -> int:
    """Bytes of a teacher's weights, the matrices of its image tower in the compute type."""
    halved = sum(p.numel() for p in teacher.visual.parameters() if p.ndim > 1)
    return int(4 * sum(p.numel() for p in teacher.parameters()) - 2 * halved)


def view_bytes(teacher: Any) -> int:
    """Bytes of a view in a teacher on the meta device while gradients of its pixels are found.

    Mixed precision keeps about half of what float32 does.
    """
    side_px = side_of(teacher)
    teacher.requires_grad_(False)

    def attempt(num: int) -> None:
        image_NCHW = torch.zeros(num, 3, side_px, side_px, device="meta", requires_grad=True)
        torch.autograd.grad(teacher.encode_image(image_NCHW).sum(), image_NCHW)

    return measured_need(attempt, "meta").of_image // 2


def text_bytes(teacher: Any, *, with_gradients: bool) -> int:
    """Bytes of a text that is as long as the text tower's context, in float32."""
    made: list[Tensor] = []

    def start(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        made.append(output.detach().requires_grad_(with_gradients))
        return made[-1]

    def attempt(num: int) -> None:
        length = getattr(teacher, "context_length", USUAL_CONTEXT)
        token_NT = torch.zeros(num, length, dtype=torch.long, device="meta")
        with torch.set_grad_enabled(with_gradients):
            embedding_ND = teacher.encode_text(token_NT)
        if with_gradients:
            torch.autograd.grad(embedding_ND.sum(), made, allow_unused=True)
        made.clear()

    tables = [m for m in teacher.modules() if isinstance(m, nn.Embedding)]
    handles = [table.register_forward_hook(start) for table in tables]
    try:
        return measured_need(attempt, "meta").of_image
    finally:
        for handle in handles:
            handle.remove()
