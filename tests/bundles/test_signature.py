"""Who made a bundle: what a signature refuses, and the lines of SECURITY.md that make its keys."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from dfkd_edge.bundles.bundle import BundleContents, write_bundle
from dfkd_edge.bundles.extension import extend_bundle
from dfkd_edge.bundles.opening import open_bundle
from dfkd_edge.bundles.signature import load_signer, load_verifier, sign_bundle, verify_bundle
from dfkd_edge.errors import ArtifactError
from dfkd_edge.preflight import plan_check
from dfkd_edge.runtime import check
from dfkd_edge.runtime.bundle_files import MANIFEST, SIGNATURE, Bundle
from tests.fixtures.command import call
from tests.fixtures.files import edit_json, read_json

Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def write_pair(folder: Path, name: str, key: Private, passphrase: bytes = b"") -> Path:
    """Write a private key and, as `NAME.pub`, the public one."""
    hidden = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    path = folder / name
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))
    raw = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pub").write_bytes(raw)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_pair(tmp_path, "maker.key", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def signed(tiny_bundle: Bundle, key: Path) -> Bundle:
    sign_bundle(tiny_bundle, load_signer(key))
    return tiny_bundle


def public(key: Path) -> Path:
    return key.with_suffix(".pub")


def test_a_signature_is_no_part_of_the_bundle_and_host_and_device_pass_it(
    signed: Bundle, key: Path, tiny_contents: BundleContents
) -> None:
    assert SIGNATURE not in signed.manifest.files
    (signed.folder / "report.html").write_text("written later")
    assert plan_check(signed.folder, "", public(key)).sha256 == signed.sha256
    flags = ("--bundle", str(signed.folder), "--duration", "0.01", "--warmup", "0", "--quiet")
    assert check.main(list(flags)) == 0
    assert plan_check(signed.folder, "", public(key)).sha256 == signed.sha256
    write_bundle(signed.folder, tiny_contents)  # as `export --exist-ok` does
    assert not (signed.folder / SIGNATURE).exists()


def test_the_tool_of_the_standard_reads_the_signature(signed: Bundle, key: Path) -> None:
    from model_signing import verifying

    config = verifying.Config().use_elliptic_key_verifier(public_key=public(key))
    config.set_ignore_unsigned_files(True).verify(signed.folder, signed.folder / SIGNATURE)


def _hash_anew(signed: Bundle) -> None:
    edit_json(signed.folder / MANIFEST, status="failed")
    open_bundle(signed.folder)  # whole for all that the hashes tell


def _drop_a_file(signed: Bundle) -> None:
    files = read_json(signed.folder / MANIFEST)["files"]
    files.pop("recipe.md")
    edit_json(signed.folder / MANIFEST, files=files)


def _forge(signed: Bundle) -> None:
    document = read_json(signed.folder / SIGNATURE)
    (signature,) = document["dsseEnvelope"]["signatures"]
    signature["sig"] = signature["sig"][:20] + "AAAA" + signature["sig"][24:]
    edit_json(signed.folder / SIGNATURE, **document)


def _empty(signed: Bundle) -> None:
    (signed.folder / SIGNATURE).write_text('{"verificationMaterial": []}')


def _nest(signed: Bundle) -> None:
    (signed.folder / SIGNATURE).write_text("[" * 100_000)


def _unlist(signed: Bundle) -> None:
    document = read_json(signed.folder / SIGNATURE)
    document["dsseEnvelope"]["signatures"] = []
    edit_json(signed.folder / SIGNATURE, **document)


def _remove(signed: Bundle) -> None:
    (signed.folder / SIGNATURE).unlink()


CHANGES = {
    _hash_anew: "not the one that was signed",
    _drop_a_file: "not the one that was signed",
    _forge: "damaged or forged",
    _empty: "damaged or forged",
    _nest: "cannot be read as JSON",
    _unlist: "damaged or forged",
    _remove: "bundle is not signed",
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_refused_in_one_line(signed: Bundle, key: Path, change: object) -> None:
    assert callable(change)
    change(signed)
    code, out, errors = call("check", signed.folder, "--verify", public(key))
    assert (code, out, errors.count("\n")) == (1, "", 1)
    assert CHANGES[change] in errors


def test_the_signature_of_another_bundle_or_another_key_is_refused(
    signed: Bundle, key: Path, tmp_path: Path
) -> None:
    stranger = write_pair(tmp_path, "other.key", ec.generate_private_key(ec.SECP384R1()))
    code, _, errors = call("check", signed.folder, "--verify", public(stranger))
    assert (code, errors.count("\n")) == (1, 1)
    assert "bundle is signed with another key" in errors
    longer = tmp_path / "note.md"
    longer.write_text("added\n")
    copy = open_bundle(Path(shutil.copytree(signed.folder, tmp_path / "copy")))
    extended = extend_bundle(copy, {"runtimes/note.md": longer}, ())
    assert not (extended.folder / SIGNATURE).exists()
    shutil.copy(signed.folder / SIGNATURE, extended.folder)
    with pytest.raises(ArtifactError, match="not the one that was signed"):
        verify_bundle(extended, load_verifier(public(key)))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda f, k: write_pair(f, "enc.key", k, b"secret"), "key is encrypted"),
        (lambda f, _: write_pair(f, "r.key", rsa.generate_private_key(65537, 2048)), "no private"),
        (lambda f, _: write_pair(f, "e.key", ed25519.Ed25519PrivateKey.generate()), "no private"),
        (lambda f, _: write_pair(f, "b.key", ec.generate_private_key(ec.SECP256K1())), "no priv"),
        (lambda f, k: public(write_pair(f, "p.key", k)), "no private key"),
        (lambda f, _: f, "not a plain file"),
        (lambda f, _: f / "gone.key", "No such file"),
    ],
    ids=["encrypted", "rsa", "ed25519", "curve", "public", "folder", "missing"],
)
def test_a_key_that_cannot_sign_is_told_of_before_the_run_is_looked_for(
    make: object, reason: str, tmp_path: Path
) -> None:
    assert callable(make)
    path = make(tmp_path, ec.generate_private_key(ec.SECP521R1()))
    code, out, errors = call("export", tmp_path / "no-run", "--sign", path)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert reason in errors
    if "encrypted" not in reason:
        return
    code, _, errors = call("check", tmp_path, "--verify", path)  # a private key verifies nothing
    assert (code, errors.count("\n")) == (2, 1)
    assert "no public key" in errors


@pytest.mark.parametrize(
    "name", ["runtimes/onnxruntime/numpy.py", "runtimes/triton/student/2/model.onnx", "student/a"]
)
def test_what_was_laid_beside_signed_files_is_refused(signed: Bundle, key: Path, name: str) -> None:
    added = signed.folder / name
    added.parent.mkdir(parents=True, exist_ok=True)
    added.symlink_to(signed.folder / "classes.txt")
    code, _, errors = call("check", signed.folder, "--verify", public(key), "--dry-run")
    assert (code, len(errors.splitlines())) == (1, 1)
    assert f"file is covered by no signature ({added})" in errors
    added.unlink()
    (signed.folder / "result.json").write_text("{}")
    verify_bundle(signed, load_verifier(public(key)))


def test_a_frame_is_judged_of_a_bundle_whose_signature_holds_and_with_nothing_else(
    signed: Bundle, key: Path
) -> None:
    verify = ("--verify", public(key), "--frame", signed.folder / "test_card.png")
    (signed.folder / SIGNATURE).unlink()
    code, _, errors = call("check", signed.folder, *verify)
    assert (code, "bundle is not signed" in errors) == (1, True), errors
    for other in (("--data", "."), ("--max-drop", "1"), ("--device", "cpu"), ("--dry-run",)):
        code, _, errors = call("check", signed.folder, *verify, *other)
        assert code == 2
        assert f"a frame is judged alone ({other[0]})" in errors


@pytest.mark.parametrize("flag", ["--sign", "--verify"])
def test_without_the_extra_both_say_what_to_install(
    key: Path, tmp_path: Path, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)  # how Python notes what is not there
    code, _, errors = call({"--sign": "export", "--verify": "check"}[flag], tmp_path, flag, key)
    assert (code, errors.count("\n")) == (4, 1)
    assert "pip install 'dfkd-edge[sign]'" in errors


@pytest.mark.skipif(not shutil.which("openssl"), reason="the lines are of openssl")
def test_the_keys_that_the_security_page_makes_sign_and_verify(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / ".github/SECURITY.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    (openssl .+)$", page, re.M)
    assert len(lines) == 2
    for line in lines:
        subprocess.run(shlex.split(line), cwd=tmp_path, check=True, capture_output=True)
    sign_bundle(tiny_bundle, load_signer(tmp_path / "bundle.key"))
    verify_bundle(tiny_bundle, load_verifier(tmp_path / "bundle.pub"))
