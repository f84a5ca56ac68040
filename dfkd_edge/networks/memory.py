"""How many images go together where memory is short, and what happens when it runs out.

One mechanism for every stage: work on many images is done in `Parts`; where memory runs out they
are halved, the user is told, the run keeps the size, and the work goes on. Whoever works in parts
sees to it that the result does not depend on their size beyond rounding: gradients are of sums, and
random numbers are drawn for the whole batch (`draws.PartGenerator`).
"""

import json
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import filelock
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.files import atomic_write
from dfkd_edge.interfaces import SynthesisBatch, SynthesizedImages
from dfkd_edge.machine.ranks import ALONE, Ranks
from dfkd_edge.networks.draws import PartGenerator
from dfkd_edge.networks.transfer import free_bytes
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runtime.counting import counted

Made = TypeVar("Made")
SHARE_OF_FREE = 0.85
"""Of a card's free memory that parts are sized for: libraries work in some of it, and blocks of an
allocator do not fill it without gaps (ours)."""

POOL_SHARE = 0.4  # Of a card's free memory that images may take: a step needs the rest


def say_nothing(text: str) -> None:
    """Tell nobody that parts were halved."""


@dataclass(slots=True)
class Parts:
    """How many images of some work go together."""

    work: str  # In the user's words, such as "training the student"
    size: int  # Images together from here on
    device: str = "cpu"
    tell: Callable[[str], None] = say_nothing
    record: Path | None = None  # File of the run that keeps the size
    key: str = ""  # Of the stage whose size it is
    ranks: Ranks = ALONE  # Who work on one batch: if one runs out, all begin it again
    whole: str = ""  # Where the work cannot be split: a hint for who runs out

    def split(self, num: int) -> list[slice]:
        """Return the rows of each part of `num` images."""
        return [slice(begin, min(begin + self.size, num)) for begin in range(0, num, self.size)]

    def halve(self, num: int, fault: str) -> None:
        """Go on with half of `num` images together, and keep that; `fault` is empty elsewhere.

        Raises:
            EnvironmentLackingError: it was met here, and `num` is 1 or must stay whole.
        """
        if fault and (num == 1 or self.whole):
            raise _too_small(self, num, fault)
        self.size = max(1, num // 2)
        if self.record:
            with filelock.FileLock(_lock_of(self.record)):
                # another process of the run may have come down further
                self.size = min(self.size, _recorded(self.record, self.key) or self.size)
                _write_record(self.record, self.key, self.size)
        self.tell(f"  out of memory while {self.work}: {counted(self.size, 'image')} at a time now")


def in_parts(
    num: int,
    parts: Parts,
    make: Callable[[slice], Made],
    start_over: Callable[[], None] | None = None,
) -> list[Made]:
    """Do work on `num` images in parts; returns what each part made, in their order.

    A part that runs out of memory is made again in halves. Gradients that a part has begun to add
    up cannot be told from those of others: such work names what clears them in `start_over`, and
    begins again with the first image, as ranks do that share a batch.

    Raises:
        EnvironmentLackingError: the device is too small for one image.
    """
    made: list[Made] = []
    begin, tried = 0, 0
    while True:
        fault = ""
        while begin < num and not fault:
            rows = slice(begin, min(begin + parts.size, num))
            tried = rows.stop - rows.start
            try:
                made.append(make(rows))
                begin = rows.stop
            except torch.OutOfMemoryError as error:
                fault = str(error) or "out of memory"
        if not parts.ranks.any_in_step(bool(fault)):
            return made
        # only here, where the error and its frames no longer hold the part's tensors
        parts.halve(max(map(int, parts.ranks.gather(str(tried)))), fault)
        if torch.device(parts.device).type != "cpu":
            torch.get_device_module(parts.device).empty_cache()
        if start_over:
            start_over()
            made, begin = [], 0


def made_in_parts(
    batch: SynthesisBatch,
    parts: Parts,
    make: Callable[[SynthesisBatch, slice], SynthesizedImages],
) -> SynthesizedImages:
    """Make the images of a batch in parts, given with their rows: the same whatever their size.

    Raises:
        EnvironmentLackingError: the device is too small for one image.
    """
    images, embeddings, _ = zip(*batch_in_parts(batch, parts, make), strict=True)
    return SynthesizedImages(torch.cat(images), torch.cat(embeddings))


def batch_in_parts(
    batch: SynthesisBatch, parts: Parts, make: Callable[[SynthesisBatch, slice], Made]
) -> list[Made]:
    """Do work on the prompts of a batch in parts, given with their rows.

    Raises:
        EnvironmentLackingError: the device is too small for one image.
    """
    num, generator = len(batch.label_N), batch.generator
    drawn_from = generator

    def make_rows(rows: slice) -> Made:
        nonlocal drawn_from
        drawn_from = PartGenerator.of_rows(generator, num, rows)
        part = batch.of_rows(rows, (rows.stop - rows.start) / num)
        return make(replace(part, generator=drawn_from), rows)

    made = in_parts(num, parts, make_rows)
    generator.set_state(drawn_from.get_state())  # each part drew for the whole batch
    return made


def recorded_parts(
    work: str,
    stage: str,
    key: str,
    context: StageContext,
    find_size: Callable[[], int],
    ranks: Ranks = ALONE,
) -> Parts:
    """Parts of the size that the run has recorded for a stage; else one is found and recorded.

    So a run that is stopped, or split among processes, works in the same parts and makes the same
    numbers to the last bit. `key` is that of the stage; `work` tells pieces of a stage apart.
    `ranks` that work on one batch take the first one's size.
    """
    record = context.run_dir.stage_dir(stage) / f"{work.replace(' ', '-')}.parts.json"
    size: int | None = 0
    if ranks.is_first:
        with filelock.FileLock(_lock_of(record)):
            size = _recorded(record, key)
            if size is None:
                size = find_size()
                _write_record(record, key, size)
    size = int(ranks.tell(str(size)))
    return Parts(work, size, context.device, context.reporter.note, record, key, ranks)


def _lock_of(record: Path) -> Path:
    return record.with_name(f".{record.name}.lock")


def _recorded(record: Path, key: str) -> int | None:
    try:
        document = json.loads(record.read_text(encoding="utf-8"))
        size = document["images"] if document["key"] == key else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # none yet, or damaged
        return None  # it is found again
    return size if type(size) is int and size > 0 else None


def _write_record(record: Path, key: str, size: int) -> None:
    atomic_write(record, json.dumps({"key": key, "images": size}) + "\n")


def _too_small(parts: Parts, num: int, fault: str) -> EnvironmentLackingError:
    card = "this machine"
    if torch.device(parts.device).type != "cpu":
        module: Any = torch.get_device_module(parts.device)
        properties = module.get_device_properties(parts.device)
        card = f"{properties.name} with {properties.total_memory / 2**30:.1f} GiB"
    images = "one image" if num == 1 else f"{num} images at once"
    return EnvironmentLackingError(
        f"{card} has too little memory for {images} while {parts.work}: {fault.splitlines()[0]}",
        where=f"--device {parts.device}",
        hint=parts.whole
        or "smaller networks, fewer synthesis.num_views, a smaller synthesis.image_size_px, or a "
        "card with more free memory; --dry-run says how much a stage needs",
    )


def memory_budget(device: torch.device | str, memory_mib: int) -> int:
    """Bytes that parts may take: of a card's free memory, elsewhere those of the setting."""
    return budget_of(free_bytes(torch.device(device))) or memory_mib * 2**20


def budget_of(free: int) -> int:
    """Bytes that parts may take where so many are free on a card."""
    return int(SHARE_OF_FREE * free)


def pool_budget(free: int) -> int:
    """Bytes that images may take there which stay while a student learns from them."""
    return int(POOL_SHARE * free)


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of tensors on a kind of device that live at once; meta tensors count too.

    What a library takes besides tensors, and the gaps of an allocator, are not seen.
    """

    def __init__(self, device_type: str) -> None:
        """Start at nothing: what lives already is not counted."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.device_type, self.live, self.peak = device_type, 0, 0
        self._known: dict[int, weakref.finalize[Any, Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it made."""
        made = func(*args, **kwargs or {})
        for value in tree_iter(made):
            if isinstance(value, Tensor) and value.device.type == self.device_type:
                self.count(value)
        return made

    def count(self, tensor: Tensor) -> None:
        """Count a tensor's storage, once, until it is freed."""
        storage = tensor.untyped_storage()
        number = storage._cdata
        if number not in self._known:
            num_bytes = int(storage.nbytes())
            self.live += num_bytes
            self.peak = max(self.peak, self.live)
            self._known[number] = weakref.finalize(storage, self._free, number, num_bytes)

    def _free(self, number: int, num_bytes: int) -> None:
        self.live -= num_bytes
        self._known.pop(number, None)


def peak_bytes(work: Callable[[int], object], num_images: int, device: torch.device | str) -> int:
    """Bytes of tensors that live at once while work on so many images is done."""
    with PeakBytes(torch.device(device).type) as counter:
        work(num_images)
    return int(counter.peak)


@dataclass(frozen=True, slots=True)
class Need:
    """What some work takes: bytes for each image, and bytes that all images share."""

    of_image: int
    shared: int

    def of(self, num_images: int) -> int:
        """Bytes of so many images together."""
        return self.shared + num_images * self.of_image

    def images_in(self, num_bytes: int, limit: int) -> int:
        """Largest number of images, 1 to `limit`, that so many bytes hold."""
        return max(1, min(limit, (num_bytes - self.shared) // max(self.of_image, 1)))


def measured_need(work: Callable[[int], object], device: torch.device | str) -> Need:
    """Do work on one image and on two, and tell what an image takes from what all share."""
    one, two = (peak_bytes(work, num, device) for num in (1, 2))
    return Need(two - one, max(2 * one - two, 0))


def images_that_fit(
    work: Callable[[int], object], device: torch.device | str, num_bytes: int, limit: int
) -> int:
    """Largest number of images, 1 to `limit`, whose work so many bytes hold.

    It is 1 where no two go together. A card too small for one says so when one is worked on.
    """
    try:
        return measured_need(work, device).images_in(num_bytes, limit)
    except torch.OutOfMemoryError:
        return 1
