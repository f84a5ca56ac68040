"""Every error a user can meet, as one tree; cli.main catches its root once.

DfkdEdgeError                    exit code 1   something failed; nothing that was done is lost
├── UsageError                   exit code 2   the request itself cannot be met
│   ├── ConfigError                            a value, key or name is wrong
│   ├── ClassNamesError                        the class list cannot be used
│   └── RunDirError                            the folder is not ours, or holds another run
├── ArtifactError                exit code 1   a file of a run or bundle is missing or changed
├── RankLostError               exit code 1   another rank of this command has ended
├── ConversionError              exit code 1   an exporter or a parser refused the model
├── GateFailedError              exit code 3   a conversion lost more accuracy than was allowed
└── EnvironmentLackingError      exit code 4   weights, disk space or a device are not there
"""

import contextlib
import difflib
from collections.abc import Iterable, Iterator

from dfkd_edge.runtime.faults import Fault
from dfkd_edge.runtime.plain_text import one_line


class DfkdEdgeError(Exception):
    """What is wrong, where, and what to do next, in one line."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        """Compose the line; `where` is a file, line, option or key, and `hint` the next step."""
        self.what, self.where, self.hint = one_line(what), one_line(where), hint
        place = f" ({self.where})" if where else ""
        advice = f": {hint}" if hint else ""
        super().__init__(f"{self.what}{place}{advice}")


class UsageError(DfkdEdgeError):
    """The request cannot be met as it stands."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown or out of range."""


class ClassNamesError(UsageError):
    """The class list cannot be used."""


class RunDirError(UsageError):
    """The output folder is not ours, or belongs to another run."""


class ArtifactError(DfkdEdgeError):
    """A file of a run or a bundle is missing, cut short or changed."""


class RankLostError(DfkdEdgeError):
    """Another process of the same command has ended, or no longer answers."""


class ConversionError(DfkdEdgeError):
    """An exporter, a lint rule or a parser refused the model."""


class GateFailedError(DfkdEdgeError):
    """A conversion lost more accuracy than was allowed; the bundle is kept, marked failed."""

    exit_code = 3


class EnvironmentLackingError(DfkdEdgeError):
    """This machine lacks something: weights, space, a device."""

    exit_code = 4


BY_EXIT_CODE: dict[int, type[DfkdEdgeError]] = {
    1: ArtifactError,
    2: UsageError,
    3: GateFailedError,
    4: EnvironmentLackingError,
}


@contextlib.contextmanager
def faults_as_errors() -> Iterator[None]:
    """Raise a runtime fault as the error with its exit code.

    Raises:
        DfkdEdgeError: in place of any Fault.
    """
    try:
        yield
    except Fault as fault:
        kind = BY_EXIT_CODE[fault.exit_code]
        raise kind(fault.what, where=fault.where, hint=fault.hint) from fault


def did_you_mean(
    name: str, known: Iterable[str], otherwise: str | None = None, num_names: int = 1
) -> str:
    """Compose the hint for a name that nobody knows.

    Args:
        name: what was asked for.
        known: what there is.
        otherwise: the hint where no known name is near; None lists them all.
        num_names: at most so many near names, the nearest first.
    """
    names = list(known)
    near = nearest(name, names, num_names)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known: {', '.join(names)}" if otherwise is None else otherwise


def nearest(name: str, known: Iterable[str], num_names: int = 1) -> list[str]:
    """Known names that look like one, the most alike first; often none."""
    return difflib.get_close_matches(name, list(known), n=num_names)  # from a ratio of 0.6 on
