"""Looks at a class list through the teacher's text space: what will be mixed up, and what to write.

Every threshold is measured in the teacher at hand (`similarity_scale.py`); typos are looked up in
lists of words (`class_words.py`), and what a prompt costs in the memory (`class_drawings.py`).

Shape suffixes: K classes, P pairs, T kinds of things, D embedding width.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dfkd_edge.class_lint.findings import ClassListReport, Finding
from dfkd_edge.class_lint.scale import SCALE_WORDS, Scale, measure_scale
from dfkd_edge.class_lint.senses import read_senses, read_word, sense_prompt, with_article
from dfkd_edge.class_lint.slips import find_slips
from dfkd_edge.class_lint.spelling import KnownWords, known_words
from dfkd_edge.class_names import ClassNames, folded
from dfkd_edge.config.settings import TeacherConfig
from dfkd_edge.drawings.drawn_class import FEW, DrawnClass, drawn_classes
from dfkd_edge.drawings.memory import DrawingMemory
from dfkd_edge.drawings.names import carries_name, is_kind_of
from dfkd_edge.interfaces import Reporter
from dfkd_edge.networks.teacher import MINI, Teacher, load_teacher
from dfkd_edge.runtime.counting import counted

KINDS = (
    *("animal", "bird", "fish", "insect", "person", "food", "fruit", "vegetable", "drink", "tool"),
    *("machine", "vehicle", "building", "furniture", "clothing", "plant", "toy", "weapon"),
    *("road sign", "musical instrument", "body part", "electronic device", "kitchen utensil"),
    *("sports equipment", "office equipment", "place"),
)
MAX_ENSEMBLE = 200
"""Longer lists are embedded with the first template only: a thousand names stay a few seconds."""
MAX_PAIRS = 50
LONGEST_FRAME = "a painting of a {} in a style"
"""Stands for the longest sentence that a name is put into."""
CHUNK = 64
CLEAR_KIND, CLEAR_THEME = 0.3, 0.3
"""Share above which a name has a kind of its own, and a list a common one (ours)."""
SHARPNESS = 6.0
"""Softmax over kinds: exponent for the distance between synonyms and unrelated words (ours)."""
MIN_LETTERS_A_TOKEN = 2.0
"""Words that fall into shorter pieces were hardly ever seen in the teacher's training (ours)."""
ODD_CHARACTERS = frozenset("/\\<>{}[]|*=_")
WORTH_A_PROMPT = 0.03
"""A prompt is suggested for a pair when it lowers the similarity by this much."""


def lint_classes(classes: ClassNames, config: TeacherConfig, reporter: Reporter) -> ClassListReport:
    """Embed a class list and look for what the teacher will mix up or misread.

    Raises:
        ConfigError: unknown teacher.
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
            some = ClassNames(classes.names[part], classes.prompts[part])
            rows.append(teacher.zero_shot_head(some, templates))
            progress.advance(len(rows[-1]))
    with reporter.stage("comparing the names", 3) as progress:
        words = known_words(teacher)
        progress.advance()
        scale = measure_scale(teacher, templates)
        progress.advance()
        reader = _Reader(teacher, classes, torch.cat(rows), scale, words)
        report = reader.report()
        progress.advance()
    if teacher.name != MINI:
        return report
    return _with_drawings(report, reader, templates, DrawingMemory(teacher, reporter))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Collects the findings of one list."""

    teacher: Teacher
    classes: ClassNames
    head_KD: Tensor
    scale: Scale
    words: KnownWords

    def report(self) -> ClassListReport:
        pairs = self._pairs()
        kind_KT = self._kinds()
        kinds: dict[str, str] = {}
        prompts: dict[str, str] = {}
        typos, slips = self._typos(), find_slips(self.classes.names)
        asked = {name for finding in typos for name in finding.names}
        findings = [
            *typos,
            *(Finding(s.rule, (s.name,), s.text, s.is_fine) for s in slips),
            *self._odd_characters(),
            *self._too_long(),
            *self._of_pairs(pairs, kind_KT, kinds),
            *(f for f in self._unknown_words() if f.names[0] not in asked),
            *self._unclear(kind_KT, prompts),
            *self._ambiguous(prompts),
        ]
        only_kinds = frozenset(kinds.keys() - prompts.keys())
        # a prompt made of a wrong name repeats what is wrong with it
        wrong = asked | {slip.name for slip in slips if not slip.is_fine}
        wrong |= {name for name in self.classes.names if self.words.may_be_slip(name)}
        return ClassListReport(
            self.scale,
            tuple(findings),
            pairs,
            {name: prompt for name, prompt in (kinds | prompts).items() if name not in wrong},
            only_kinds,
            mended={slip.name: slip.mended for slip in slips if slip.mended},
        )

    def _typos(self) -> list[Finding]:
        found = ((name, self.words.corrections(name)) for name in self.classes.names)
        return [
            Finding("typo", (name,), "did you mean " + " or ".join(f"'{c}'" for c in near) + "?")
            for name, near in found
            if near
        ]

    def _pairs(self) -> tuple[tuple[str, str, float], ...]:
        names = self.classes.names
        first_P, second_P = torch.triu_indices(len(names), len(names), offset=1)
        cosine_P = (self.head_KD @ self.head_KD.T)[first_P, second_P]
        order = cosine_P.argsort(descending=True, stable=True)[:MAX_PAIRS]
        return tuple(
            (names[int(first_P[p])], names[int(second_P[p])], float(cosine_P[p])) for p in order
        )

    def _kinds(self) -> Tensor:
        """Share of each kind of thing in each class, [K, T]."""
        kind_TD = self.teacher.embed_texts([f"a photo of {with_article(k)}" for k in KINDS])
        spread = max(self.scale.synonyms - self.scale.unrelated, 1e-3)
        return (self.head_KD @ kind_TD.T * (SHARPNESS / spread)).softmax(1)

    def _of_pairs(
        self, pairs: Sequence[tuple[str, str, float]], kind_KT: Tensor, prompts: dict[str, str]
    ) -> list[Finding]:
        findings = []
        for one, two, cosine in pairs:
            if cosine >= self.scale.synonyms:
                text = "the teacher sees one class: merge them, or give both prompts that differ"
                findings.append(Finding("near-duplicate", (one, two), text))
            elif cosine >= self.scale.confusing:
                text = "will often be mixed up"
                findings.append(Finding("confusable", (one, two), text))
            else:
                break
            for name, other in ((one, two), (two, one)):
                prompt = self._apart(name, other, cosine, kind_KT)
                if prompt:
                    prompts.setdefault(name, prompt)
        return findings

    def _apart(self, name: str, other: str, cosine: float, kind_KT: Tensor) -> str:
        """Name the kind of a class where that sets it apart from the other; else nothing."""
        index, rival = self.classes.names.index(name), self.classes.names.index(other)
        kind = int(kind_KT[index].argmax())
        if self.classes.prompts[index] or kind == int(kind_KT[rival].argmax()):
            return ""
        prompt = _kind_prompt(name, KINDS[kind])
        found = float(self.teacher.embed_texts([prompt])[0] @ self.head_KD[rival])
        return prompt if found <= cosine - WORTH_A_PROMPT else ""

    def _unclear(self, kind_KT: Tensor, prompts: dict[str, str]) -> list[Finding]:
        """Names without a kind of their own in a list of one kind: `date` among fruits."""
        theme_T = kind_KT.mean(0)
        theme = int(theme_T.argmax())
        if float(theme_T[theme]) < CLEAR_THEME:
            return []
        findings = []
        for index, (name, own) in enumerate(
            zip(self.classes.names, self.classes.prompts, strict=True)
        ):
            best, kind = (float(v) for v in kind_KT[index].max(0))
            if own is None and best < CLEAR_KIND and int(kind) != theme:
                text = f"the teacher does not see {with_article(KINDS[theme])} in this name"
                findings.append(Finding("unclear", (name,), text))
                prompts[name] = _kind_prompt(name, KINDS[theme])
        return findings

    def _ambiguous(self, prompts: dict[str, str]) -> list[Finding]:
        """Words with several senses: how the teacher reads them, and which one the list means."""
        senses_of, findings = read_senses(), []
        whole_D = self.head_KD.sum(0)
        pairs = zip(self.classes.names, self.classes.prompts, strict=True)
        for row_D, (name, own) in zip(self.head_KD, pairs, strict=True):
            senses = senses_of.get(folded(name))
            if own or not senses:
                continue
            reading = read_word(self.teacher, senses, row_D, whole_D - row_D, self.scale)
            if reading.is_misread:
                prompts[name] = sense_prompt(name, reading.meant)
            is_fine = reading.meant == reading.read
            findings.append(Finding("ambiguous", (name,), reading.sentence(name), is_fine))
        return findings

    def _odd_characters(self) -> list[Finding]:
        """Paths and markup are text to us, and harmless; the teacher makes nothing of them."""
        return [
            Finding("odd-characters", (name,), "is this a name? write it in plain words")
            for name in self.classes.names
            if set(name) & ODD_CHARACTERS
        ]

    def _unknown_words(self) -> list[Finding]:
        findings = []
        for name, own in zip(self.classes.names, self.classes.prompts, strict=True):
            if own:
                continue
            if not all(unicodedata.name(c, "").startswith("LATIN") for c in name if c.isalpha()):
                text = "names are English words to the teacher: translate this one"
                findings.append(Finding("unknown-word", (name,), text))
            elif self._is_hardly_known(name):
                text = "the teacher hardly knows this word: take a more common English one, or "
                text += "describe it in a prompt"
                findings.append(Finding("unknown-word", (name,), text))
        return findings

    def _is_hardly_known(self, name: str) -> bool:
        letters = "".join(c if c.isalpha() else " " for c in name)
        num_tokens = self._num_tokens(letters) if letters.strip() else 0
        num_letters = len(letters.replace(" ", ""))
        return num_tokens >= 3 and num_letters / num_tokens < MIN_LETTERS_A_TOKEN

    def _too_long(self) -> list[Finding]:
        findings = []
        for name, own in zip(self.classes.names, self.classes.prompts, strict=True):
            text = own or LONGEST_FRAME.format(name)
            if len(text) > 40 and self._num_tokens(text) < 0:
                what = "longer than the teacher reads; the end is cut off"
                findings.append(Finding("too-long", (name,), what))
        return findings

    def _num_tokens(self, text: str) -> int:
        """Tokens of a text without the marks around it; -1 where it fills the whole context."""
        token_T = self.teacher.tokenise([text])[0]
        padding = int((token_T == token_T[-1]).sum())
        return len(token_T) - padding - 2 if padding > 1 else -1


def _with_drawings(
    report: ClassListReport, reader: _Reader, templates: Sequence[str], memory: DrawingMemory
) -> ClassListReport:
    """Add what the memory holds, and take back prompts that would cost more than they bring."""
    drawn = tuple(drawn_classes(memory, reader.classes, reader.head_KD))
    pairs = zip(reader.classes.names, reader.classes.prompts, strict=True)
    own = {name: prompt for name, prompt in pairs if prompt}
    prompts = own | report.suggested_prompts
    listed = EmbeddedList(reader.classes, reader.head_KD, templates)
    costs = given_up(memory, listed, prompts)
    costly = [
        Finding(
            "costs-drawings",
            (name,),
            f"its prompt costs {counted(costs[name], 'drawing')} that its name alone would bring: "
            "keep the prompt only if the name misleads",
            is_fine=True,
        )
        for name in own
        if costs[name]
    ]
    kept = {
        name: prompt
        for name, prompt in report.suggested_prompts.items()
        if not (name in report.kind_prompts and costs[name])
    }
    return replace(
        report,
        findings=(*report.findings, *_of_drawings(drawn, own), *costly),
        suggested_prompts=kept,
        drawn=drawn,
        given_up={name: costs[name] for name in own | kept},
    )


def _of_drawings(drawn: Sequence[DrawnClass], prompts: Mapping[str, str]) -> list[Finding]:
    """Name classes whose drawings are of something else, and those that have next to none."""
    findings = []
    for each in drawn:
        if each.is_of_others:
            own = f", {each.num_own} carries its own" if each.num_own else ""
            how = "change its prompt" if each.name in prompts else "give a description after a tab"
            text = f'its drawings are named "{each.names()}"{own}: accept it, or {how}'
            findings.append(Finding("drawn-as-other", (each.name,), text))
        elif each.num_own <= FEW < each.num_fitting:
            text = f'its drawings are named "{each.names()}", which is its kind'
            findings.append(Finding("drawn-as-kind", (each.name,), text, is_fine=True))
        elif each.num_own <= FEW:
            what = "one drawing alone fits" if each.num_own else "no drawing fits"
            whose = "its prompt" if each.name in prompts else "its name"
            text = f"{what} {whose}; expect less, real pictures help (distill --images DIR)"
            findings.append(Finding("few-drawings", (each.name,), text, is_fine=True))
    return findings


def _kind_prompt(name: str, kind: str) -> str:
    return f"a photo of {with_article(name)}, a kind of {kind}"


@dataclass(frozen=True, slots=True)
class EmbeddedList:
    """A class list and where the teacher sees it."""

    classes: ClassNames
    head_KD: Tensor
    """The zero-shot head of the list with its own prompts."""
    templates: Sequence[str]


def given_up(
    memory: DrawingMemory, listed: EmbeddedList, prompts: Mapping[str, str]
) -> dict[str, int]:
    """Count the drawings that classes take by their names alone and not by their prompts.

    Only those of the class or its kind count: a prompt is there to lose drawings of something else.

    Args:
        memory: of the teacher whose text space decides.
        listed: the class list.
        prompts: class name -> a prompt, of the list or suggested; all are tried at once.
    """
    if not prompts:
        return {}
    teacher, names = memory.teacher, listed.classes.names
    rows = [names.index(name) for name in prompts]
    bare = ClassNames(tuple(prompts), (None,) * len(prompts))
    bare_KD, own_KD = listed.head_KD.clone(), listed.head_KD.clone()
    bare_KD[rows] = teacher.zero_shot_head(bare, listed.templates)
    own_KD[rows] = teacher.embed_texts(list(prompts.values()))
    by_name = memory.search(bare_KD, ClassNames(names, (None,) * len(names)))
    by_prompt = memory.search(own_KD, ClassNames(names, tuple(map(prompts.get, names))))
    lost = (memory.named({*by_name[row]} - {*by_prompt[row]}) for row in rows)
    return {
        name: sum(
            num
            for drawing, num in named.items()
            if carries_name(drawing, name) or is_kind_of(drawing, name)
        )
        for name, named in zip(prompts, lost, strict=True)
    }
