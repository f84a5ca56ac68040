"""What the name of a drawing says of a class: its name, its kind, or only what it begins with.

Compound names of English end in what the thing is: a traffic cone is a cone.
"""

from __future__ import annotations

import re

from dfkd_edge.class_names import folded
from dfkd_edge.drawings.words import singulars, synonyms


def is_kind_of(drawing: str, name: str) -> bool:
    """Whether a drawing's name is how a class's name ends: "elephant" of "African elephant".

    It shows the class less closely, and rarely something else ("bank" of "piggy bank").
    """
    drawn, ends = _forms(drawing), [_forms(part) for part in name.split(",")]
    return bool(drawn) and any(
        len(drawn) < len(end) and all(a & b for a, b in zip(drawn, end[-len(drawn) :], strict=True))
        for end in ends
    )


def carries_name(drawing: str, name: str, prompt: str = "") -> bool:
    """Whether a drawing's name holds a class's name, is a synonym, or stands in its prompt.

    "guide dog" carries dog, "couch" sofa; "wheel" does not carry wheelbarrow. Commas part the
    synonyms of ImageNet's names.
    """
    drawn = _forms(drawing)
    parts = [part for part in name.split(",") if part.strip()]
    return (
        any(_holds(drawn, _forms(part)) for part in parts)
        or any(_joined(drawing) & _joined(part) for part in parts)
        or any(synonyms(part) & set(singulars(folded(drawing))) for part in parts)
        or _holds(_forms(prompt), drawn)
    )


def is_of_qualifier(drawing: str, name: str) -> bool:
    """Whether a drawing shares words with a class's name, and not what the class is.

    "horizontal traffic" of "traffic cone", "fire" of "fire extinguisher"; never a synonym.
    """
    drawn = _forms(drawing)

    def is_shared(word: set[str]) -> bool:
        return any(word & other for other in drawn)

    parts = [words for words in map(_forms, name.split(",")) if words]
    qualifies = any(is_shared(word) for words in parts for word in words[:-1])
    is_named = any(is_shared(words[-1]) for words in parts) or carries_name(drawing, name)
    return qualifies and not is_named


def _forms(text: str) -> list[set[str]]:
    return [set(singulars(word)) for word in re.findall(r"\w+", folded(text))]


def _joined(text: str) -> set[str]:
    return set(singulars("".join(re.findall(r"\w+", folded(text)))))


def _holds(whole: list[set[str]], part: list[set[str]]) -> bool:
    return bool(part) and all(any(forms & other for other in whole) for forms in part)
