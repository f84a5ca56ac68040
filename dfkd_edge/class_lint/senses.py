"""Names that mean several things: which sense the teacher reads, and which the list suggests.

Shape suffixes: K classes, S senses, M drawings, D embedding width.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.resources import files

import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.class_lint.findings import Finding
from dfkd_edge.class_lint.scale import Scale
from dfkd_edge.class_names import ClassNames, folded
from dfkd_edge.drawings.memory import DrawingMemory
from dfkd_edge.drawings.names import FEW
from dfkd_edge.networks.teacher import Teacher

CLEAR_MARGIN = 0.18
"""The list suggests the sense nearest to its other classes only where it leads the second by this
share of the cosine between synonyms and unrelated words (ours)."""


def read_senses() -> dict[str, list[str]]:
    """Read the words of several senses: folded word -> short descriptions."""
    text = files("dfkd_edge.assets").joinpath("words/senses.json").read_text(encoding="utf-8")
    senses: dict[str, list[str]] = json.loads(text)
    return senses


def find_ambiguous(
    teacher: Teacher, classes: ClassNames, head_KD: Tensor, scale: Scale
) -> Iterator[Finding]:
    """Find names of several senses without a prompt, and suggest one where the teacher misreads."""
    senses_of, whole_D = read_senses(), head_KD.sum(0)
    least = CLEAR_MARGIN * (scale.synonyms - scale.unrelated)  # the range of this teacher
    for name, prompt, own_D in zip(classes.names, classes.prompts, head_KD, strict=True):
        senses = senses_of.get(folded(name))
        if prompt or not senses:
            continue
        sense_SD = teacher.embed_texts([f"a photo of {sense}" for sense in senses])
        read = senses[int((sense_SD @ own_D).argmax())]
        # own_D is left out, or a class would vote for the sense that it is read in
        (first, second), order = (sense_SD @ F.normalize(whole_D - own_D, dim=0)).topk(2)
        meant = senses[int(order[0])] if first - second >= least else ""
        yield _ambiguous(name, senses, read, meant)


def _ambiguous(name: str, senses: Sequence[str], read: str, meant: str) -> Finding:
    """Say in one line how the teacher reads a word and what the list suggests; empty: nothing."""
    text = f"may be {' or '.join(senses)}; the teacher reads {read}, the list "
    if meant == read:
        return Finding("ambiguous", (name,), f"{text}agrees", is_fine=True)
    if meant:
        line = (name, sense_prompt(name, meant))
        return Finding("ambiguous", (name,), f"{text}suggests {meant}", better_line=line)
    prompt = sense_prompt(name, next(sense for sense in senses if sense != read))
    text += f'does not tell which: if you mean another, give a prompt, such as "{prompt}"'
    return Finding("ambiguous", (name,), text)


def keep_drawings(
    finding: Finding,
    memory: DrawingMemory,
    classes: ClassNames,
    head_KD: Tensor,
    templates: Sequence[str],
) -> Finding:
    """Take the prompt for an ambiguous name back that would cost it drawings of what is meant.

    Args:
        finding: any; only one of an ambiguous name, with a prompt to write, may change.
        memory: the drawings.
        classes: the list.
        head_KD: its zero-shot head.
        templates: of the head.
    """
    if finding.rule != "ambiguous" or not finding.better_line:
        return finding
    (name, prompt), label = finding.better_line, classes.names.index(finding.names[0])
    told_KD, prompts = head_KD.clone(), list(classes.prompts)
    told_KD[label] = memory.teacher.zero_shot_head(ClassNames((name,), (prompt,)), templates)[0]
    prompts[label] = prompt
    told = ClassNames(classes.names, tuple(prompts))
    had = memory.search(head_KD, classes)[label].named
    left = memory.search(told_KD, told)[label].named
    if not len(left) <= FEW < len(had):
        return finding
    of_senses = [sense_prompt(name, sense) for sense in read_senses()[folded(name)]]
    seen_M = (memory.shown(had) @ memory.teacher.embed_texts(of_senses).T).argmax(1)
    if float((seen_M == of_senses.index(prompt)).float().mean()) <= 0.5:
        return finding
    text = f"{finding.text}; but {len(had)} drawings of it fit the bare name and "
    text += f'{len(left) or "none"} "{prompt}", so the name serves better'
    return replace(finding, text=text, is_fine=True, better_line=None)


def sense_prompt(name: str, sense: str) -> str:
    """Write the prompt of a name in one of its senses."""
    return f"a photo of {'an' if name[0].casefold() in 'aeiou' else 'a'} {name}, {sense}"
