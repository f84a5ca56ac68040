"""Runs an entry point again and again, each time in a fork of a process that has loaded it.

python warm_entry.py KIND WORDS...

WORDS are `sys.argv` as the entry point is to see it. Once it is warm it answers each line of
standard input with a run: a line of JSON, the exit code (or minus a signal) and what was said on
standard error. It imports nothing of this project that the entry point itself does not import.
"""

import contextlib
import io
import json
import os
import pkgutil
import runpy
import signal
import sys
import tempfile
import traceback
import zipimport
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

LIMIT_S = 60  # A run that takes longer hangs


def run_host() -> None:
    """Run `dfkd-edge`, or `python -m dfkd_edge`."""
    from dfkd_edge.__main__ import program

    program()


def run_device() -> None:
    """Run `python3 check.pyz`, whose modules are loaded from it once."""
    if sys.path[0] != sys.argv[0]:
        sys.path.insert(0, sys.argv[0])
    from dfkd_edge.runtime import check

    assert check.__file__.startswith(sys.argv[0]), check.__file__
    sys.exit(check.main())


def run_archive() -> None:
    """Run `python3 check.pyz`, whose modules are read from it anew: it may be damaged itself."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "dfkd_edge"]:
        del sys.modules[name]
    sys.path_importer_cache.clear()
    directories: dict[str, Any] = vars(zipimport)["_zip_directory_cache"]
    directories.clear()
    if not isinstance(pkgutil.get_importer(sys.argv[0]), zipimport.zipimporter):
        os.execv(sys.executable, [sys.executable, *sys.argv])  # no archive any more: Python's word
    runpy.run_path(sys.argv[0], run_name="__main__")  # which is what Python itself does


KINDS: dict[str, Callable[[], None]] = {
    "host": run_host,
    "device": run_device,
    "archive": run_archive,
}


def run_forked(run: Callable[[], None], said: int) -> int:
    """Run an entry point in a fork; returns how it ended, and `said` holds its standard error."""
    os.ftruncate(said, 0)
    os.lseek(said, 0, os.SEEK_SET)
    process = os.fork()
    if not process:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(said, 2)
        signal.alarm(LIMIT_S)
        _end(run)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _end(run: Callable[[], None]) -> NoReturn:
    """End this process as Python ends after an entry point."""
    code = 1
    try:
        run()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            sys.stderr.write(f"{stop.code}\n")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def main() -> None:
    """Load the entry point by running it once, then answer."""
    kind, *sys.argv = sys.argv[1:]
    sys.path.pop(0)  # of this file
    run, answers = KINDS[kind], os.fdopen(os.dup(1), "w", buffering=1)
    with _silent(), contextlib.suppress(SystemExit):
        run()
    with tempfile.TemporaryFile() as said:
        for _ in sys.stdin:
            code = run_forked(run, said.fileno())
            said.seek(0)
            text = said.read().decode("utf-8", "replace")
            answers.write(json.dumps([code, text]) + "\n")


if __name__ == "__main__":
    main()
