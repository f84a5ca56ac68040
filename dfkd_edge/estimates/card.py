"""What the stages keep in an accelerator's memory, whether one is here or not.

Passes are counted on the meta device in float32, of which mixed precision keeps about half.
`tests/test_fake_device.py` holds the sums to what a device without memory counts.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from dfkd_edge.class_names import ClassNames
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.deployment.finetune import BATCH_SIZE as TUNED_TOGETHER
from dfkd_edge.deployment.finetune import QUANTIZED_LAYERS
from dfkd_edge.distillation.distill import STEP_BYTES
from dfkd_edge.networks.memory import Need, budget_of, measured_need, pool_budget
from dfkd_edge.networks.students import Student
from dfkd_edge.networks.teacher import TEXTS_TOGETHER, encode_text, reads_ends_only
from dfkd_edge.prompts.style_slot import TRAINED_TOGETHER, class_sentences
from dfkd_edge.validation.ladder import BATCH_SIZE

USUAL_CONTEXT = 77  # Tokens, of a text tower that does not tell: CLIP's
FUSED_SHARE = 0.8
"""Of what a text keeps on the meta device, where attention is not fused as on a card; counted in
the text towers of ViT-B/32 and ViT-L/14."""
VIEW_BYTES = 4 + 1 + 1
"""Of each value of a view: float32, and bytes of the images of this step and of the next one."""
ROUNDED_BYTES = 4 + 1  # Of each value that a layer takes rounded: itself, and whether it was cut


@dataclass(frozen=True, slots=True)
class Card:
    """The card that a run is planned for."""

    free: int = 0  # Bytes; 0 where none is here to ask: as many images go together as ever do

    def holding(self, kept: int, need: Need, limit: int, *, moved: int = 0) -> int:
        """Bytes of a stage whose parts are sized as `images_that_fit` does.

        Args:
            kept: bytes that lie there when parts are sized.
            need: bytes of images together.
            limit: images that go together at most.
            moved: bytes that parts are sized beside, and that come later.
        """
        room = budget_of(self.free - kept) - moved if self.free else math.inf
        num = limit if room == math.inf else need.images_in(int(room), limit)
        return kept + moved + need.of(num)

    def has_room_for(self, pool_bytes: int) -> bool:
        """Whether the images of a training lie there while it lasts."""
        return not self.free or pool_bytes <= pool_budget(self.free)


NO_CARD = Card()


class CardNeeds:
    """Bytes of the stages that draw no images, the teacher's weights included."""

    def __init__(
        self,
        config: PipelineConfig,
        teacher: Any,
        student: Student,
        classes: ClassNames,
        card: Card = NO_CARD,
    ) -> None:
        """Take a teacher of the meta device, and a student of any."""
        self.config, self.teacher = config, teacher.requires_grad_(False)
        self.classes, self.card = classes, card
        self.student = copy.deepcopy(student).to("meta").eval()  # BatchNorm takes no single image
        self.student_bytes = 4 * student.num_parameters
        self.teacher_bytes = frozen_bytes(teacher)
        side_px = student.image_size_px
        self._shape = (3, side_px, side_px)

    def prompts(self) -> int:
        """Texts with gradients of their styles, or as many more without.

        A step keeps the styles alone, and paired with classes, up to as many as a part has.
        """
        config, length = self.config.prompts, text_length(self.teacher, self.classes)
        num = 2 * min(config.num_styles, TRAINED_TOGETHER) if config.method == "contrastive" else 0
        learning = num * text_bytes(self.teacher, length, with_gradients=True)
        num = min(TEXTS_TOGETHER, config.num_styles * len(self.classes))
        looking = num * text_bytes(self.teacher, length, with_gradients=False)
        return self.teacher_bytes + round(FUSED_SHARE * max(learning, looking))

    def learning(self, pool_bytes: int) -> int:
        """The student's weights, gradients, moments and a batch, beside the pool where it fits."""
        views_bytes = VIEW_BYTES * 3 * max(self.student.image_size_px, side_of(self.teacher)) ** 2
        need = Need(self._gradient_bytes() // 2 + views_bytes, 0)
        # beside float32 weights, gradients and what a step adds, weights in the compute type
        kept = self.teacher_bytes + self.student_bytes
        kept += pool_bytes if self.card.has_room_for(pool_bytes) else 0
        moved = (STEP_BYTES + 2) * self.student.num_parameters
        return self.card.holding(kept, need, self.config.distillation.batch_size, moved=moved)

    def finetune(self, pool_bytes: int) -> int:
        """The same in float32, with every layer's input rounded."""
        rounded: list[int] = []

        def note(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            rounded.append(args[0].numel())

        layers = [m for m in self.student.modules() if isinstance(m, QUANTIZED_LAYERS)]
        handles = [layer.register_forward_pre_hook(note) for layer in layers]
        with torch.no_grad():
            self.student.embed_images(_images(1, self._shape))
        for handle in handles:
            handle.remove()
        of_view = self._gradient_bytes() + ROUNDED_BYTES * sum(rounded)
        of_view += VIEW_BYTES * 3 * max(self.student.image_size_px, side_of(self.teacher)) ** 2
        # weights, what they are rounded to, gradients and both moments
        kept = self.teacher_bytes + 5 * self.student_bytes + TUNED_TOGETHER * of_view
        return kept + (pool_bytes if self.card.has_room_for(pool_bytes) else 0)

    def evaluation(self, num_images: int) -> int:
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
        return self.teacher_bytes + 2 * self.student_bytes + min(num_images, BATCH_SIZE) * of_image

    def _gradient_bytes(self) -> int:
        """Bytes that a view keeps in the student until gradients are found, in float32."""
        student = self.student

        def attempt(num: int) -> None:
            student.embed_images(_images(num, self._shape)).sum().backward()
            student.zero_grad()

        return measured_need(attempt, "meta").of_image


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


def text_length(teacher: Any, classes: ClassNames) -> int:
    """Tokens of a text that the text tower of a teacher on the meta device reads."""
    if not reads_ends_only(teacher):
        return int(getattr(teacher, "context_length", USUAL_CONTEXT))
    token_NT = open_clip.tokenize(
        [text.replace("{}", "warm", 1) for text in class_sentences(classes)]
    )
    return int(token_NT.argmax(1).max()) + 1


def text_bytes(teacher: Any, length: int, *, with_gradients: bool) -> int:
    """Bytes of a text of so many tokens in a text tower, in float32."""
    made: list[Tensor] = []

    def start(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        made.append(output.detach().requires_grad_(with_gradients))
        return made[-1]

    def attempt(num: int) -> None:
        token_NT = torch.zeros(num, length, dtype=torch.long, device="meta")
        with torch.set_grad_enabled(with_gradients):
            embedding_ND = encode_text(teacher, token_NT)
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
