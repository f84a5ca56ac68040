"""Who made a bundle: signed with a key of its maker's, in the format of OpenSSF model signing.

Offline: an elliptic-curve key pair, no service. The signature lies beside the manifest and is
listed in none; it covers the manifest and every file that this lists, so that whoever changes a
bundle and hashes it anew needs the key as well. Any tool of that format reads it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dfkd_edge.errors import ArtifactError, EnvironmentLackingError, UsageError, faults_as_errors
from dfkd_edge.files import atomic_write, scratch_folder
from dfkd_edge.runtime.bundle_files import MANIFEST, RUNTIMES, SIGNATURE, Bundle
from dfkd_edge.runtime.documents import parse_json, read_raw
from dfkd_edge.runtime.safe_files import reading

if TYPE_CHECKING:
    from model_signing import hashing, signing, verifying

    from dfkd_edge.interfaces import Reporter

Config = TypeVar("Config")
SIGN, VERIFY = "--sign", "--verify"
CURVES = "P-256, P-384 or P-521"
TO_MAKE = "openssl ecparam -name prime256v1 -genkey -noout -out {key}"
TO_PUBLISH = "openssl ec -in {key} -pubout -out {public}"
MAX_KEY_BYTES = 1 << 16
LOADED_FROM = (RUNTIMES, "student")  # Folders whose files are found by their places


def load_signer(key: Path) -> signing.Config:
    """Read the private key that `--sign` names, before anything is made.

    Raises:
        UsageError: it is missing, encrypted, or no elliptic-curve key.
        EnvironmentLackingError: the extra is not installed.
    """
    require_key_file(key, SIGN)
    _require_library()
    from model_signing import signing

    def load() -> signing.Config:
        return signing.Config().use_elliptic_key_signer(private_key=key)

    make = f"{TO_MAKE.format(key='bundle.key')} makes one"
    return _loaded(load, key, SIGN, f"no private key of the curves {CURVES}", make)


def load_verifier(public_key: Path) -> verifying.Config:
    """Read the public key that `check --verify` names.

    Raises:
        UsageError: it is missing, or no public elliptic-curve key.
        EnvironmentLackingError: the extra is not installed.
    """
    require_key_file(public_key, VERIFY)
    _require_library()
    from model_signing import verifying

    def load() -> verifying.Config:
        return verifying.Config().use_elliptic_key_verifier(public_key=public_key)

    publish = TO_PUBLISH.format(key="bundle.key", public="bundle.pub")
    what = f"no public key of the curves {CURVES}"
    return _loaded(load, public_key, VERIFY, what, f"its maker's {publish} writes it")


def sign_bundle(bundle: Bundle, signer: signing.Config) -> Path:
    """Sign a finished bundle, in place of an earlier signature; returns where it lies.

    Raises:
        EnvironmentLackingError: the disk is full or not writable.
    """
    path = bundle.folder / SIGNATURE
    with scratch_folder() as folder:  # the library would write through a link
        fresh = folder / SIGNATURE
        signer.set_hashing_config(_hashing(bundle)).sign(bundle.folder, fresh)
        atomic_write(path, fresh.read_bytes())
    return path


def sign_or_tell(bundle: Bundle, key: Path | None, was_signed: bool, reporter: Reporter) -> None:
    """Sign a bundle that a command has made, or say that it is not signed where the earlier was.

    Args:
        bundle: as it is now; one that was there already may be signed.
        key: private; None signs nothing.
        was_signed: whether the bundle that it was made of, or that it replaced, was.
        reporter: is told.
    """
    if key:
        reporter.note(f"  signed: {sign_bundle(bundle, load_signer(key))}")
    elif was_signed and not is_signed(bundle.folder):
        reporter.note(
            f"  not signed: the signature was of the bundle as it was; {SIGN} KEY signs this one"
        )


def is_signed(folder: Path) -> bool:
    """Whether a signature lies in a bundle, whoever made it."""
    return (folder / SIGNATURE).is_file()


def verify_bundle(bundle: Bundle, verifier: verifying.Config) -> None:
    """Check that a bundle is what the owner of a key signed, and that nothing was laid beside.

    A file that is not listed is refused where programs and runtimes would load it unasked.

    Raises:
        ArtifactError: it is not signed, by another key, or was changed since.
    """
    path = bundle.folder / SIGNATURE
    if not path.is_file():
        from dfkd_edge.results.swap import KEY as SWAP

        # either command opens the bundle that is there, and signs it
        made_by = "classes swap" if SWAP in bundle.manifest.provenance else "export"
        hint = f"ask its maker: dfkd-edge {made_by}, called again with {SIGN} KEY, signs it"
        raise ArtifactError("bundle is not signed", where=str(bundle.folder), hint=hint)
    from cryptography.exceptions import InvalidSignature

    with faults_as_errors():
        raw = read_raw(path)
        parse_json(raw, path)  # of bounded depth
    verifier.set_hashing_config(_hashing(bundle))
    try:
        with scratch_folder() as folder, contextlib.redirect_stdout(sys.stderr):
            copy = folder / SIGNATURE  # what was looked at is what is read
            copy.write_bytes(raw)
            verifier.verify(bundle.folder, copy)
    except (
        *(ValueError, KeyError, TypeError, AttributeError, IndexError),
        InvalidSignature,
    ) as error:
        raise ArtifactError(
            _reason(error), where=str(path), hint="do not use it before its maker has said why"
        ) from error
    added = next(_added(bundle), None)
    if added:
        hint = "delete it, unless you made it yourself, as an engine"
        raise ArtifactError("file is covered by no signature", where=str(added), hint=hint)


def _added(bundle: Bundle) -> Iterator[Path]:
    for folder in LOADED_FROM:
        for path in sorted((bundle.folder / folder).rglob("*")):
            name = path.relative_to(bundle.folder).as_posix()
            if (path.is_symlink() or not path.is_dir()) and name not in bundle.manifest.files:
                yield path


def _reason(error: Exception) -> str:
    text = str(error)
    if text.startswith("Key mismatch"):
        return "bundle is signed with another key"
    if text.startswith("Signature mismatch"):
        return "bundle is not the one that was signed: it was changed since, and hashed anew"
    return "signature is damaged or forged"


def _hashing(bundle: Bundle) -> hashing.Config:
    """Hash the manifest and what it lists; results and reports beside it come and go."""
    from model_signing import hashing, manifest

    listed = [bundle.folder / name for name in (MANIFEST, *bundle.manifest.files)]

    class Listed(hashing.Config):
        """Takes the files of the manifest, whatever else lies in the folder."""

        def hash(self, model_path: hashing.PathLike, **_: object) -> manifest.Manifest:
            return super().hash(model_path, files_to_hash=listed)

        def add_ignored_paths(self, **_: object) -> None:
            """Pass over what a signature asks to leave out."""

    return Listed()  # type: ignore[no-untyped-call]


def require_key_file(path: Path, option: str) -> None:
    """Check that a key is a small plain file.

    Raises:
        UsageError: it is not.
    """
    try:
        with reading(path) as stream:
            is_small = len(stream.read(MAX_KEY_BYTES + 1)) <= MAX_KEY_BYTES
    except OSError as error:
        what = f"key cannot be read: {error.strerror}"
        raise UsageError(what, where=f"{option} {path}", hint="name a PEM file") from error
    if not is_small:
        raise UsageError("file is too large for a key", where=f"{option} {path}")


def _loaded(load: Callable[[], Config], key: Path, option: str, what: str, hint: str) -> Config:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return load()
    except TypeError as error:  # cryptography's word for a passphrase that was not given
        plain = f"openssl pkey -in {key.name} -out plain.key writes it without its passphrase"
        raise UsageError("key is encrypted", where=f"{option} {key}", hint=plain) from error
    except (ValueError, AttributeError, UnsupportedAlgorithm) as error:
        raise UsageError(what, where=f"{option} {key}", hint=hint) from error


def _require_library() -> None:
    """Load model_signing, which takes half a second that only signing needs."""
    try:
        import model_signing  # noqa: F401
    except ImportError as error:
        raise EnvironmentLackingError(
            f"signatures need the extra `sign`, {error.name or error} is not installed",
            where=f"{SIGN}, {VERIFY}",
            hint="pip install 'dfkd-edge[sign]'",
        ) from error
