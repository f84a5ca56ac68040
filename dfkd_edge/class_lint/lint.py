"""The lint of a class list: what the teacher will mix up or misread in it.

Every threshold on a cosine is measured in the teacher at hand (`scale.py`).

Shape suffixes: K classes, P pairs, T tokens, D embedding width.
"""

import unicodedata
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from dfkd_edge.class_lint.findings import ClassListReport, Finding
from dfkd_edge.class_lint.scale import SCALE_WORDS, Scale, measure_scale
from dfkd_edge.class_lint.senses import find_ambiguous, keep_drawings
from dfkd_edge.class_lint.slips import IN_OURS, find_slips, known_words
from dfkd_edge.class_names import ClassNames
from dfkd_edge.config.settings import MINI, TeacherConfig
from dfkd_edge.drawings.drawn_class import DrawnClass, drawn_classes
from dfkd_edge.drawings.memory import DrawingMemory
from dfkd_edge.drawings.names import FEW
from dfkd_edge.interfaces import Reporter
from dfkd_edge.networks.teacher import Teacher, load_teacher

MAX_ENSEMBLE = 200
"""Longer lists are embedded with the first template only: a thousand names stay a few seconds."""
MAX_PAIRS = 50
CHUNK = 64  # Names that are embedded between two steps of the progress bar
LONGEST_FRAME = "a painting of a {} in a style"  # The longest sentence that a name is put into
MIN_LETTERS_A_TOKEN = 2.0
"""A word that the tokenizer cuts into shorter pieces was rare in the teacher's training (ours)."""
ODD_CHARACTERS = frozenset("/\\<>{}[]|*=_")


def lint_classes(
    classes: ClassNames, config: TeacherConfig, reporter: Reporter, *, holds_prompts: bool = True
) -> ClassListReport:
    """Embed a class list and look for what the teacher will mix up or misread.

    Args:
        classes: the list.
        config: of the teacher.
        reporter: shows the bars.
        holds_prompts: whether it has our form; that of another tool has no place for a prompt.

    Raises:
        ConfigError: unknown teacher, or the decoder's memory is incomplete.
        EnvironmentLackingError: the teacher's weights are out of reach.
    """
    with reporter.stage("loading the teacher", 1) as progress:
        teacher = load_teacher(config, ClassNames(SCALE_WORDS, (None,) * len(SCALE_WORDS)))
        progress.advance()
    templates = config.templates if len(classes) <= MAX_ENSEMBLE else config.templates[:1]
    with reporter.stage("reading the names", len(classes)) as progress:
        rows = []
        for start in range(0, len(classes), CHUNK):
            part = slice(start, start + CHUNK)
            names = ClassNames(classes.names[part], classes.prompts[part])
            rows.append(teacher.zero_shot_head(names, templates))
            progress.advance(len(rows[-1]))
        head_KD = torch.cat(rows)
    with reporter.stage("comparing the names", 1) as progress:
        scale, pairs = measure_scale(teacher, templates), most_alike(classes, head_KD)
        findings = [
            *_of_words(teacher, classes),
            *find_slips(classes.names, holds_prompts),
            *_of_form(teacher, classes),
            *_of_pairs(pairs, scale),
            *find_ambiguous(teacher, classes, head_KD, scale),
        ]
        progress.advance()
    drawn: list[DrawnClass] = []
    if teacher.name == MINI:  # synthesis has drawings for the embedded teacher alone
        memory = DrawingMemory(teacher)
        drawn = drawn_classes(memory, classes, head_KD)
        findings = [keep_drawings(each, memory, classes, head_KD, templates) for each in findings]
        findings += _of_drawings(drawn, classes, holds_prompts)
    return ClassListReport(classes, scale, tuple(findings), pairs, tuple(drawn))


def most_alike(classes: ClassNames, head_KD: Tensor) -> tuple[tuple[str, str, float], ...]:
    """Return at most MAX_PAIRS pairs of classes with their cosine, most similar first."""
    names = classes.names
    first_P, second_P = torch.triu_indices(len(names), len(names), offset=1)
    cosine_P = (head_KD @ head_KD.T)[first_P, second_P]
    order = cosine_P.argsort(descending=True, stable=True)[:MAX_PAIRS]  # equal ones in list order
    return tuple(
        (names[int(first_P[p])], names[int(second_P[p])], float(cosine_P[p])) for p in order
    )


def _of_pairs(pairs: Iterable[tuple[str, str, float]], scale: Scale) -> Iterator[Finding]:
    for one, two, cosine in pairs:
        if cosine >= scale.synonyms:
            text = "the teacher sees one class: merge them, or give both prompts that differ"
            yield Finding("near-duplicate", (one, two), text)
        elif cosine >= scale.confusing:
            yield Finding("confusable", (one, two), "will often be mixed up")


def _of_words(teacher: Teacher, classes: ClassNames) -> Iterator[Finding]:
    """Find typos, and words that the teacher hardly knows and no prompt describes."""
    words = known_words(teacher)
    for name, prompt in zip(classes.names, classes.prompts, strict=True):
        near = " or ".join(f"'{text}'" for text in words.corrections(name))
        if near:
            yield Finding("typo", (name,), f"did you mean {near}?")
        elif prompt:
            continue
        elif not all(unicodedata.name(c, "").startswith("LATIN") for c in name if c.isalpha()):
            text = "names are English words to the teacher: translate this one"
            yield Finding("unknown-word", (name,), text)
        elif _is_hardly_known(teacher, name):
            text = "the teacher hardly knows this word: take a more common English one, or "
            text += "describe it in a prompt"
            yield Finding("unknown-word", (name,), text)


def _is_hardly_known(teacher: Teacher, name: str) -> bool:
    words = "".join(c if c.isalpha() else " " for c in name).split()
    num_tokens = _num_tokens(teacher, " ".join(words)) if words else 0
    return num_tokens >= 3 and sum(map(len, words)) / num_tokens < MIN_LETTERS_A_TOKEN


def _of_form(teacher: Teacher, classes: ClassNames) -> Iterator[Finding]:
    """Find paths and markup, harmless to us, and what exceeds the teacher's context."""
    for name, prompt in zip(classes.names, classes.prompts, strict=True):
        if set(name) & ODD_CHARACTERS:
            yield Finding("odd-characters", (name,), "is this a name? write it in plain words")
        if _num_tokens(teacher, prompt or LONGEST_FRAME.format(name)) < 0:
            text = "longer than the teacher reads; the end is cut off"
            yield Finding("too-long", (name,), text)


def _num_tokens(teacher: Teacher, text: str) -> int:
    """Count the tokens of a text without the marks around it; -1 where it fills the context."""
    token_T = teacher.tokenise([text])[0]
    padding = int((token_T == token_T[-1]).sum())  # 1 where the end mark fills the last place
    return len(token_T) - padding - 2 if padding > 1 else -1


def _of_drawings(
    drawn: Iterable[DrawnClass], classes: ClassNames, holds_prompts: bool
) -> Iterator[Finding]:
    """Find classes whose drawings are of something else, and those that have next to none."""
    for each, prompt in zip(drawn, classes.prompts, strict=True):
        if each.is_of_others:
            own = f", {each.num_own} carries its own" if each.num_own else ""
            told = "give a description after a tab" if holds_prompts else f"describe it {IN_OURS}"
            how = "change its prompt" if prompt else told
            text = f'its drawings are named "{each.names()}"{own}: accept it, or {how}'
            yield Finding("drawn-as-other", (each.name,), text)
        elif each.num_own <= FEW < each.num_fitting:
            text = f'its drawings are named "{each.names()}", which is its kind'
            yield Finding("drawn-as-kind", (each.name,), text, is_fine=True)
        elif each.num_own <= FEW:
            what = "one drawing alone fits" if each.num_own else "no drawing fits"
            whose = "its prompt" if prompt else "its name"
            alike = f", so its images show what looks alike ({each.names()})"
            text = f"{what} {whose}{alike if each.num_alike else ''}; expect less, "
            text += "real pictures help (distill --images DIR)"
            yield Finding("few-drawings", (each.name,), text, is_fine=True)
