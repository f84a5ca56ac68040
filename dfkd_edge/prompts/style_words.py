"""The words that Mix-Prompt mixes: two lists of ours, or a text file of the user's."""

from pathlib import Path

from dfkd_edge.errors import ConfigError

NEUTRAL = (
    *("bright", "dark", "dim", "sunny", "foggy", "rainy", "snowy", "dusty", "stormy", "moonlit"),
    *("blurry", "sharp", "grainy", "faded", "glossy", "matte", "rough", "smooth", "soft", "harsh"),
    *("warm", "cold", "pale", "vivid", "monochrome", "colorful", "golden", "silver", "neon"),
    *("wooden", "metallic", "stone", "glass", "paper", "fabric", "clay", "marble", "plastic"),
    *("ancient", "modern", "vintage", "futuristic", "rustic", "minimal", "ornate", "abstract"),
)
"""Light, weather, surface, material and age: no word names a domain of the usual test suites."""
DOMAINS = (
    *NEUTRAL,
    *("photo", "realistic", "art", "painting", "watercolor", "cartoon", "anime", "sketch"),
    *("drawing", "doodle", "clipart", "infographic", "product", "rendering", "synthetic"),
)
"""Names domains of PACS, OfficeHome, DomainNet and VisDA: say so beside any figure on those."""
STYLE_WORD_LISTS = {"neutral": NEUTRAL, "domains": DOMAINS}


def read_style_words(name_or_path: str) -> tuple[str, ...]:
    """Look a list up by name, or read a text file: one word or phrase a line, `#` for comments.

    Raises:
        ConfigError: there is no such list or file, or it holds fewer than two words.
    """
    if name_or_path in STYLE_WORD_LISTS:
        return STYLE_WORD_LISTS[name_or_path]
    try:
        lines = Path(name_or_path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "style words cannot be read",
            where=f"prompts.style_words={name_or_path}",
            hint=f"a UTF-8 text file, or one of: {', '.join(STYLE_WORD_LISTS)}",
        ) from error
    words = dict.fromkeys(line.strip() for line in lines if not line.lstrip().startswith("#"))
    words.pop("", None)
    if len(words) < 2:
        raise ConfigError(
            "fewer than two style words", where=name_or_path, hint="write one word a line"
        )
    return tuple(words)
