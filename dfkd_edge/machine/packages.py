"""The Python packages that this product runs on here, as their own metadata tells."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OWN_NAME = "dfkd-edge"
LICENCE_KEYS = ("License-Expression", "License")  # The former is of PEP 639
MAX_LETTERS = 100  # Of a licence's name: some put the whole text there


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package."""

    name: str  # As registries compare it: lower case, hyphens
    version: str
    licence: str  # An expression of SPDX or words of its maker; empty where it says nothing
    requires: tuple[str, ...]  # Names of packages that it is installed with, in order


def installed_packages(extras: Iterable[str] = ()) -> tuple[Package, ...]:
    """List what the product needs here, with what these need in turn, by name.

    Args:
        extras: of the product, such as `siglip`.

    Returns:
        The packages without the product; none where it runs from its sources, without metadata.
    """
    found: dict[str, Package] = {}
    waiting = [(OWN_NAME, tuple(extras))]
    asked = set(waiting)
    while waiting:
        name, wanted = waiting.pop()
        try:
            there = distribution(name)
        except PackageNotFoundError:
            continue  # a requirement that is not met took no part
        needed = [(canonicalize_name(r.name), tuple(sorted(r.extras))) for r in _of(there, wanted)]
        earlier = found[name].requires if name in found else ()
        names = tuple(sorted({*earlier, *(name for name, _ in needed)}))
        found[name] = Package(name, there.version, _licence(there), names)
        waiting += [need for need in needed if need not in asked]
        asked.update(needed)
    found.pop(OWN_NAME, None)
    kept = set(found)
    return tuple(
        Package(p.name, p.version, p.licence, tuple(n for n in p.requires if n in kept))
        for _, p in sorted(found.items())
    )


def _of(there: Distribution, extras: tuple[str, ...]) -> list[Requirement]:
    wanted = map(Requirement, there.requires or ())
    marked = [{"extra": extra} for extra in ("", *extras)]
    return [r for r in wanted if not r.marker or any(r.marker.evaluate(m) for m in marked)]


def _licence(there: Distribution) -> str:
    told = {key: there.metadata.get_all(key) or [] for key in (*LICENCE_KEYS, "Classifier")}
    for text in (told[key][0].strip() for key in LICENCE_KEYS if told[key]):
        if text:
            return str(text.splitlines()[0][:MAX_LETTERS])
    listed = (str(line) for line in told["Classifier"])
    return next((c.split(" :: ")[-1] for c in listed if c.startswith("License ::")), "")
