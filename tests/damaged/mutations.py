"""Damage that keeps a file's form: what flipped bytes alone would never bring past its parser."""

import copy
import io
import json
import random
import tomllib
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import tomli_w

Damage = Callable[[bytes, random.Random], bytes]
TEXTS = (
    *("", " ", "\n", "\x1b[31m", "\u202e", "..", "../../x", "/etc/passwd", "unknown", "\ud800"),
    *("a" * 5_000, "0", "1e999", "nan", "-1", "null", "{}", "\0", "class", "dog", "犬"),
)
NUMBERS = (0, 1, -1, 2, 255, 2**31, 2**63, -(2**63), 10**40, 1e308, -1e308, 5e-324, 0.5)
NOT_FINITE = (float("nan"), float("inf"), -float("inf"))
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"": None}, [1, "a", None])


def flip(content: bytes, rng: random.Random) -> bytes:
    """Change, drop, repeat or insert some bytes."""
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place, size = rng.randrange(len(damaged) + 1), rng.choice((1, 2, 4, 8, 64))
        action = rng.randrange(5)
        if action == 0 and place < len(damaged):
            damaged[place] ^= 1 << rng.randrange(8)
        elif action == 1:
            del damaged[place : place + size]
        elif action == 2:
            damaged[place:place] = damaged[place : place + size]
        elif action == 3:
            damaged[place : place + size] = rng.choice((b"\0", b"\xff", rng.randbytes(1))) * size
        else:
            damaged[place:place] = rng.choice(TEXTS).encode("utf-8", "surrogatepass")[:300]
    return bytes(damaged[: rng.randrange(len(damaged) + 1)] if rng.random() < 0.1 else damaged)


def other_value(value: Any, rng: random.Random) -> Any:
    """Make another value in the place of one."""
    if isinstance(value, list) and value and rng.random() < 0.4:
        return rng.choice((value * 2, value[1:], [value], [*value, rng.choice(OTHERS)]))
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.4:
        return rng.choice((-value, value + 1, float(value), str(value), value * 2**20))
    return copy.deepcopy(rng.choice((*TEXTS, *NUMBERS, *NOT_FINITE, *OTHERS)))


def damage_tree(tree: Any, rng: random.Random) -> Any:
    """Change, drop or add an entry somewhere in lists and tables; the tree itself is changed."""
    places: list[tuple[Any, Any]] = []
    waiting = [tree] if isinstance(tree, dict | list) else []
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node))
        places += [(node, key) for key in keys]
        waiting += [node[key] for key in keys if isinstance(node[key], dict | list)]
    if not places:
        return other_value(tree, rng)
    for node, key in rng.choices(places, k=rng.choice((1, 1, 2, 3))):
        action = rng.random()
        try:
            if action < 0.2:
                del node[key]
            elif action < 0.3 and isinstance(node, dict):
                node[rng.choice(TEXTS)] = node.pop(key)
            else:
                node[key] = other_value(node[key], rng)
        except (KeyError, IndexError):  # gone with an earlier change
            continue
    return tree


def damage_json(content: bytes, rng: random.Random) -> bytes:
    """Damage a JSON document in its values; what is none, in its bytes."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return flip(content, rng)
    if rng.random() < 0.02:
        return b'{"a":' * 3_000 + b"1" + b"}" * 3_000
    try:
        text = json.dumps(damage_tree(tree, rng), ensure_ascii=rng.random() < 0.5)
    except RecursionError:  # it was nested too deeply before
        return flip(content, rng)
    return text.encode("utf-8", "surrogatepass")


def damage_toml(content: bytes, rng: random.Random) -> bytes:
    """Damage a TOML file in its values; what is none, in its bytes."""
    try:
        tree = damage_tree(tomllib.loads(content.decode("utf-8")), rng)
        return tomli_w.dumps(tree).encode("utf-8")
    except (ValueError, RecursionError, TypeError, AttributeError):  # TOML has no null
        return flip(content, rng)


def damage_tensors(content: bytes, rng: random.Random) -> bytes:
    """Damage the header of a safetensors file, whose length is told anew."""
    size = int.from_bytes(content[:8], "little")
    header = damage_json(content[8 : 8 + size], rng)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def damage_archive(content: bytes, rng: random.Random) -> bytes:
    """Damage one file of a ZIP archive, whose sums are right."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = {info.filename: archive.read(info) for info in archive.infolist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, zlib.error):
        return flip(content, rng)
    if not files:
        return flip(content, rng)
    name = rng.choice([*files, *(n for n in files if n.endswith((".pkl", ".npy")))])
    if rng.random() < 0.15:
        del files[name]
    else:
        files[name] = flip(files[name], rng)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, raw in files.items():
            archive.writestr(name, raw)
    return written.getvalue()


def damage_png(content: bytes, rng: random.Random) -> bytes:
    """Damage a PNG in its chunks, whose sums are right; other pictures in their bytes."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return flip(content, rng)
    damaged, place = bytearray(content[:8]), 8
    while place + 8 <= len(content):
        size, name = int.from_bytes(content[place : place + 4], "big"), content[place + 4 :][:4]
        data = content[place + 8 : place + 8 + size]
        if rng.random() < 0.25:
            data = flip(data, rng)
        for _ in range(rng.choice((0, 1, 1, 1, 1, 1, 1, 2))):
            damaged += len(data).to_bytes(4, "big") + name + data
            damaged += zlib.crc32(name + data).to_bytes(4, "big")
        place += 12 + size
    return bytes(damaged)


def in_part(damage: Damage, head: int = 1) -> Damage:
    """Damage what follows the first bytes, which say where it goes; at times these as well."""

    def damaged(content: bytes, rng: random.Random) -> bytes:
        first, rest = content[:head], content[head:]
        return (rng.randbytes(head) if rng.random() < 0.02 else first) + damage(rest, rng)

    return damaged
