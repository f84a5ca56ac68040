"""What a swap of classes says of itself in a bundle: from which list to which, and what it cost."""

from dataclasses import dataclass

from dfkd_edge.results.ladder import Ends
from dfkd_edge.results.wording import shown_text
from dfkd_edge.runtime.counting import counted, first_few

KEY = "swap"  # Of the manifest's provenance
TOLD_ABOVE = 0.02  # Loss of the classes that stay, a share: less is not worth a warning
MAX_NAMED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassLoss:
    """A class that stays, and that the new list took much from."""

    name: str
    taken_by: str  # The class that most of it went to; empty where no answer is finite
    before: int  # Images named right by the bundle that was swapped
    after: int
    num_images: int

    def sentence(self) -> str:
        """Say how much went where."""
        taker = f" to {self.taken_by}" * bool(self.taken_by)
        return f"{self.name}{taker} ({self.before} of {self.num_images} right -> {self.after})"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCost:
    """How often images of classes that stay are named as they were asked for, before and after."""

    before: float  # Share of the images, by the bundle that was swapped
    after: float
    interval: Ends  # 95%, of the loss
    num_images: int
    num_pictures: int
    taken_by: tuple[str, ...] = ()
    """`horse to zebra`: classes that lose images and who takes them, most first."""
    lost: tuple[ClassLoss, ...] = ()
    """Classes that lose more than chance, or half; what the mean of a long list does not show."""

    @property
    def drop(self) -> float:
        """What they lose, a share."""
        return self.before - self.after

    @property
    def is_told(self) -> bool:
        """Whether the user must hear of it."""
        return self.drop > TOLD_ABOVE or bool(self.lost)

    def sentence(self) -> str:
        """Say what the new list costs the classes that stay."""
        low, high = (100 * end for end in self.interval)
        shown = shown_text(self.num_images, self.num_pictures, "surrogate image")
        text = (
            f"classes that stay: {100 * self.before:.1f}% -> {100 * self.after:.1f}% named right, "
            f"{100 * self.drop:+.1f} points lost ({low:+.1f} to {high:+.1f}) on {shown}"
        )
        if self.lost:
            classes = [loss.sentence() for loss in self.lost]
            return f"{text}; by class: {first_few(classes, MAX_NAMED)}"
        takers = f": {first_few(self.taken_by, MAX_NAMED)}" if self.taken_by else ""
        return text + takers * self.is_told


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """A list of classes that took the place of another one, without training."""

    bundle: str  # That was swapped
    bundle_sha256: str  # Of its manifest
    student_sha256: str  # Of the run's student, which has the run's classes
    learnt: tuple[str, ...]  # Classes of the run
    unlearnt: tuple[str, ...]  # Classes of this bundle that the run does not have
    drawn: tuple[str, ...] = ()  # Of these, what the head was fitted to drawings of
    num_drawn_images: int = 0  # Of such drawings
    cost: KeptCost | None  # None where no class stays, or no image shows one
    unmeasured: tuple[str, ...] = ()  # Classes that stay and of which the run has no image

    @property
    def is_doubtful(self) -> bool:
        """Whether the user must hear of more than the gate."""
        return bool(self.unlearnt or self.unmeasured or (self.cost and self.cost.is_told))

    def fit_sentence(self) -> str:
        """Say what the head was made of."""
        if not self.drawn:
            return "text alone"
        names = counted(len(self.drawn), "new name")
        each = self.num_drawn_images // len(self.drawn)
        text = f"fitted to drawings of {names}, {counted(each, 'image')} each"
        bare = [name for name in self.unlearnt if name not in self.drawn]
        return text + f"; text alone for {first_few(bare, MAX_NAMED)}" * bool(bare)

    def cost_sentence(self) -> str:
        """Say what classes that stay lose, or why that is not known."""
        told = [self.cost.sentence()] if self.cost else []
        told += [self.unmeasured_sentence()] if self.unmeasured else []
        return "; ".join(told) or "no class of the earlier list stays"

    def unmeasured_sentence(self) -> str:
        """Name the classes that stay and that no image of the run shows."""
        names = first_few(self.unmeasured, MAX_NAMED)
        return f"not known for {names}: classes that stay, and the run has no image of them"

    def warnings(self) -> tuple[str, ...]:
        """Say what must be read with every figure of the bundle, a sentence each."""
        others = first_few(self.learnt, MAX_NAMED)
        told = []
        if self.unlearnt:
            told.append(
                "classes were swapped without training: the student has learnt from no image of "
                f"{first_few(self.unlearnt, MAX_NAMED)} (its head: {self.fit_sentence()}), and "
                f"surrogate images are of {others}, so agreement on them says little of pictures "
                "of the new classes; measure with check --data, or distill the new list"
            )
        told.append(
            "temperature and threshold were fitted again on these images, by the teacher's answer "
            "where the class that an image was made for is not in the list"
        )
        if self.cost and self.cost.is_told:
            told.append(self.cost.sentence())
        if self.unmeasured:
            told.append(f"cost {self.unmeasured_sentence()}; measure with check --data")
        return tuple(told)
