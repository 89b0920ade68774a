"""Signed releases: real keys, the real library, no network."""

from pathlib import Path

import pytest
from release_data import make_manifest

from exporter.errors import ConfigError, IntegrityError
from registry_sync.release_manifest import Registration, ReleaseDirectory
from registry_sync.release_options import ReleaseOptions, require_sound
from registry_sync.release_writer import write_release

pytest.importorskip("model_signing")

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from registry_sync.release_signature import verify_release


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_key(name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = Path(f"{name}.pem"), Path(f"{name}.pub.pem")
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def sign() -> tuple[ReleaseDirectory, Path]:
    private, public = make_key("ours")
    Path("releases").mkdir()
    return write_release(Path("releases"), make_manifest(), {"changes.md": "none"}, private), public


def test_a_signature_holds_where_the_release_is_renamed_to_and_after_it_is_registered() -> None:
    directory, public = sign()
    verify_release(directory, public)
    directory.write_registration(Registration(registered_at="now"))
    verify_release(directory, public)


@pytest.mark.parametrize("name", ["manifest.json", "SHA256SUMS", "changes.md", "model.sig"])
def test_a_changed_file_is_found(name: str) -> None:
    directory, public = sign()
    path = directory.path / name
    path.write_text(path.read_text().replace("1", "2", 1) + " ")
    with pytest.raises(IntegrityError, match="releases/zoo-1: the signature does not hold"):
        verify_release(directory, public)


def test_a_file_that_was_added_is_found() -> None:
    directory, public = sign()
    (directory.path / "more.txt").write_text("")
    with pytest.raises(IntegrityError, match="does not hold"):
        verify_release(directory, public)


def test_another_key_does_not_do() -> None:
    directory, _ = sign()
    with pytest.raises(IntegrityError, match="does not hold"):
        verify_release(directory, make_key("theirs")[1])


def test_what_is_not_signed_is_said() -> None:
    directory, public = sign()
    directory.signature.unlink()
    with pytest.raises(IntegrityError, match="is not signed"):
        verify_release(directory, public)


def test_a_key_that_is_none_is_a_config_error_and_nothing_is_released() -> None:
    Path("releases").mkdir()
    Path("key").write_text("not a key")
    with pytest.raises(ConfigError, match=r"release\.sign_key: key: "):
        write_release(Path("releases"), make_manifest(), {}, Path("key"))
    assert not Path("releases/zoo-1").exists()
    with pytest.raises(ConfigError, match=r"--public-key key"):
        verify_release(sign_elsewhere(), Path("key"))


def sign_elsewhere() -> ReleaseDirectory:
    private, _ = make_key("ours")
    return write_release(Path("releases"), make_manifest(version="2"), {}, private)


def test_a_key_that_does_not_sign_is_told_before_anything_starts() -> None:
    _, public = make_key("ours")
    with pytest.raises(ConfigError, match=r"release\.sign_key: ours\.pub\.pem: Valid PEM but no"):
        require_sound(ReleaseOptions(name="zoo", sign_key=str(public)))


def test_a_missing_key_is_told_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"release\.sign_key: nowhere\.pem: there is no such file"):
        require_sound(ReleaseOptions(name="zoo", sign_key="nowhere.pem"))
