"""The synthesis stage: prompts -> shards of candidates -> the filtered SurrogateSet.

Synthesizers make images and nothing else: labels, styles, the teacher's judgement, shards and the
contact sheet are here, the same for all.

Shape suffixes: N images, K classes, S styles, D embedding width, C = 3 channels, H rows, W columns.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from dfkd_edge.artifacts import PromptSet, SurrogateSet, SurrogateSummary
from dfkd_edge.config.settings import SynthesisConfig
from dfkd_edge.drawings.drawn_class import DrawnClass, drawings_note, drawn_classes
from dfkd_edge.drawings.memory import DrawingMemory
from dfkd_edge.errors import ArtifactError
from dfkd_edge.interfaces import Progress, SynthesisBatch, Synthesizer, WorkShare, tell_nobody
from dfkd_edge.machine.process import give_back_memory
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.results.kept import unmade_text, unrecognised_text
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.shared import VISIBLE_S
from dfkd_edge.runs.surrogates import has_shard, read_surrogates, shard_path, write_shard
from dfkd_edge.runtime.counting import counted, duration_text
from dfkd_edge.seeding import stage_generator
from dfkd_edge.synthesis.amortized import uses_drawings
from dfkd_edge.synthesis.guidance import recognised
from dfkd_edge.synthesis.selection import write_contact_sheet, write_selection
from dfkd_edge.synthesis.setup import STAGE, SynthesisSetup
from dfkd_edge.synthesis.synthesizers import SYNTHESIZERS

POLL_S = 0.5  # How often the run directory is searched for shards of other processes


def synthesis_setup(
    prompts: PromptSet, teacher: Teacher, config: SynthesisConfig, context: StageContext
) -> SynthesisSetup:
    """Join the inputs of the stage with the entry of its synthesizer."""
    entry = SYNTHESIZERS[config.method]
    side_px = entry.stored_side_px(config, teacher.image_size_px)
    facts = entry.content(config), entry.shard_size, side_px
    return SynthesisSetup(prompts, teacher, config, context, *facts)


@torch.no_grad()
def make_candidates(
    number: int,
    setup: SynthesisSetup,
    synthesizer: Synthesizer,
    tell: Callable[[float], None] = tell_nobody,
) -> dict[str, np.ndarray]:
    """Make the candidates of one shard. Classes take turns; styles are drawn, or take turns too.

    The shard's number and the seed decide all that is drawn; `tell` is called as the work goes on
    with the share of it that was done since the last call.

    Returns:
        images uint8 [N, H, W, C], class_index, style_index, drawing_index [N], embeddings [N, D],
        probability [N] of the asked class under the zero-shot head, is_recognised [N].
    """
    prompts, teacher, config = setup.prompts, setup.teacher, setup.config
    device = teacher.device
    generator = stage_generator(setup.context.seed, STAGE, number, device=device)
    first, size = number * setup.shard_size, setup.size_of_shard(number)
    num_classes, num_styles = len(prompts.class_names), len(prompts.style_labels)
    label_N = (torch.arange(size, device=device) + first) % num_classes
    style_N = torch.randint(0, num_styles, (size,), generator=generator, device=device)
    if config.balanced_styles:
        turn_N = (torch.arange(size, device=device) + first) // num_classes
        style_N = (turn_N + label_N) % num_styles  # a class has every style before one comes twice
    table_KSD = torch.from_numpy(prompts.embeddings).to(device).view(num_classes, num_styles, -1)
    target_ND = table_KSD[label_N, style_N]
    made = synthesizer(SynthesisBatch(target_ND, label_N, style_N, generator, tell))
    logits_NK = teacher.logits(made.embedding_ND)
    probability_N = logits_NK.softmax(1).gather(1, label_N[:, None]).squeeze(1)
    drawing_N = torch.full_like(label_N, -1) if made.drawing_N is None else made.drawing_N
    pixels = (made.image_NCHW * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return {
        "images": pixels,
        "class_index": label_N.cpu().numpy(),
        "style_index": style_N.cpu().numpy(),
        "drawing_index": drawing_N.cpu().numpy(),
        "embeddings": made.embedding_ND.cpu().numpy(),
        "probability": probability_N.cpu().numpy(),
        "is_recognised": recognised(logits_NK, label_N, config.recognition_margin).cpu().numpy(),
    }


def synthesize(
    prompts: PromptSet, teacher: Teacher, config: SynthesisConfig, context: StageContext
) -> SurrogateSet:
    """Make the surrogate images, or read them when they are already there."""
    setup = synthesis_setup(prompts, teacher, config, context)
    folder, key = setup.folder, setup.key

    def read() -> SurrogateSet:
        surrogates = read_surrogates(folder, prompts.class_names, key)
        return replace(surrogates, summary=SurrogateSummary.load(folder))

    if context.is_complete(STAGE, key):
        return read()
    drawn: list[DrawnClass] = []
    if uses_drawings(teacher.name, config):
        memory = DrawingMemory(teacher)
        drawn = drawn_classes(memory, teacher.classes, teacher.head_KD)
        setup = replace(setup, memory=memory)
    note = drawings_note(drawn)
    if note:
        context.reporter.note(f"  {note}")
    make_shards(setup, WorkShare())
    return context.first_then_rest(lambda: close(setup, drawn), read)


def close(setup: SynthesisSetup, drawn: Sequence[DrawnClass]) -> SurrogateSet:
    """Choose among the candidates of all shards, and record the stage as done."""
    prompts, config, context = setup.prompts, setup.config, setup.context
    folder, key = setup.folder, setup.key
    selection = write_selection(folder, setup.num_shards, config.heldout_share, key)
    surrogates = read_surrogates(folder, prompts.class_names, key)
    if drawn:
        pairs = zip(surrogates.summary.classes, drawn, strict=True)
        classes = tuple(replace(entry, **each.to_json()) for entry, each in pairs)
        surrogates = replace(surrogates, summary=replace(surrogates.summary, classes=classes))
    sheet = write_contact_sheet(folder, surrogates)
    files = [selection, surrogates.summary.save(folder), sheet]
    files += [shard_path(folder, number) for number in range(setup.num_shards)]
    context.run_dir.complete(STAGE, key, files)
    told = unrecognised_text(surrogates.summary)
    context.reporter.note(
        f"  {len(surrogates):,} of {surrogates.summary.num_candidates:,} images kept"
        f"{told and f' ({told})'}, contact sheet: {sheet}"
    )
    unmade = unmade_text(surrogates.summary)
    if unmade:
        context.reporter.note(f"  {unmade}")
    return surrogates


def missing_shards(setup: SynthesisSetup) -> list[int]:
    """Numbers of the shards that are not there, whole and of this stage key."""
    folder, key = setup.folder, setup.key
    return [n for n in range(setup.num_shards) if not has_shard(folder, n, key)]


def await_shards(setup: SynthesisSetup, numbers: Sequence[int], patience_s: float) -> None:
    """Wait until shards that other ranks have made are seen in the run directory.

    Raises:
        ArtifactError: no new one has come for `patience_s`.
    """
    missing = set(numbers).intersection(missing_shards(setup))
    if not missing:
        return
    heard_s, done = time.monotonic(), len(numbers) - len(missing)
    name = "waiting for the file system to show the images of other ranks"
    with setup.context.reporter.stage(name, len(numbers), done) as progress:
        while missing:
            came = {n for n in missing if has_shard(setup.folder, n, setup.key)}
            if came:
                heard_s, missing = time.monotonic(), missing - came
                progress.advance(len(came))
            elif time.monotonic() - heard_s >= patience_s:
                raise ArtifactError(
                    f"no new shard of another rank is seen for {duration_text(patience_s)}, "
                    f"{counted(len(missing), 'shard')} missing",
                    where=str(shard_path(setup.folder, min(missing))),
                    hint="see what the file system does; the same command makes what is missing",
                )
            else:
                time.sleep(POLL_S)


class ShardProgress:
    """Turns shares of a shard's work into whole images for the bar, with a note beside it."""

    def __init__(self, progress: Progress, size: int, note: str) -> None:
        self._progress, self._size, self._note = progress, size, note
        self._share, self._shown = 0.0, 0

    def tell(self, share: float) -> None:
        """Add a share of the work; the last image is shown by `finish`, once it is on disk."""
        self._share += share
        num = min(math.floor(self._share * self._size), self._size - 1)
        if num > self._shown:
            self._progress.advance(num - self._shown, self._note)
            self._shown = num

    def finish(self, note: str) -> None:
        """Move the bar to the end of the shard."""
        self._progress.advance(self._size - self._shown, note)


def make_shards(setup: SynthesisSetup, share: WorkShare) -> None:
    """Make those shards of a share that are not there; ranks split it and end together."""
    ranks = setup.context.ranks
    missing = set(missing_shards(setup))
    ours = share.split(ranks.index, ranks.count).numbers(setup.num_shards)
    wanted = [number for number in ours if number in missing]
    with setup.context.speaking_for_all() as context:
        if ranks.any_of(bool(wanted)):  # a rank without shards trains the network with the others
            _make(replace(setup, context=context), ours, wanted)
        if ranks.count > 1:
            with context.reporter.stage("waiting for the images of other ranks", 1):
                ranks.wait()
    if ranks.count > 1:
        await_shards(setup, share.numbers(setup.num_shards), VISIBLE_S)


def _make(setup: SynthesisSetup, ours: Sequence[int], wanted: Sequence[int]) -> None:
    context, folder, key = setup.context, setup.folder, setup.key
    # it may train a network: only where shards are wanted
    synthesizer = SYNTHESIZERS[setup.config.method].load(setup)
    total, left = (sum(map(setup.size_of_shard, numbers)) for numbers in (ours, wanted))
    with context.reporter.stage("synthesizing images", total, total - left) as progress:
        recognised, made, note = 0, 0, ""
        for number in wanted:
            within = ShardProgress(progress, setup.size_of_shard(number), note)
            candidates = make_candidates(number, setup, synthesizer, within.tell)
            size = len(candidates["images"])
            recognised, made = recognised + int(candidates["is_recognised"].sum()), made + size
            share = float(candidates["is_recognised"].mean())
            # before the shard, and of it alone: whoever makes it again writes the same line again
            context.run_dir.append_metrics(STAGE, number + 1, {"recognised": share})
            write_shard(folder, number, key, candidates)
            note = f"teacher recognises {recognised / made:.0%}"
            within.finish(note)
    give_back_memory()
