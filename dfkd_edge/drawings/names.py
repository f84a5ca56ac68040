"""Whether a drawing's name fits a class: by the class's name, its kind, or a qualifier alone.

English compounds end in what the thing is: a traffic cone is a cone. Commas part the synonyms of
ImageNet's class names. Words are compared in the singular.
"""

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

    "guide dog" carries dog, "couch" sofa; "wheel" does not carry wheelbarrow.
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
    drawn, parts = _forms(drawing), [words for words in map(_forms, name.split(",")) if words]
    is_shared = any(_is_in(word, drawn) for words in parts for word in words[:-1])
    is_head = any(_is_in(words[-1], drawn) for words in parts)
    return is_shared and not is_head and not carries_name(drawing, name)


def _forms(text: str) -> list[set[str]]:
    """Return for each word what it may be the plural of, itself included."""
    return [set(singulars(word)) for word in re.findall(r"\w+", folded(text))]


def _joined(text: str) -> set[str]:
    """Write a name without spaces and dashes: `tooth brush` is a toothbrush."""
    return set(singulars("".join(re.findall(r"\w+", folded(text)))))


def _is_in(forms: set[str], words: list[set[str]]) -> bool:
    return any(forms & other for other in words)


def _holds(whole: list[set[str]], part: list[set[str]]) -> bool:
    return bool(part) and all(_is_in(forms, whole) for forms in part)
