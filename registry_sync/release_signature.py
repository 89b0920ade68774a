"""Signs a release with a key on disk, and checks such a signature: the OpenSSF's model-signing, offline.

The signature covers the release's directory; manifest.json in it has the sha256 of every byte that is released. Who has
the public key needs nothing of ours: `model_signing verify key`. Needs the extra `sign`.
"""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import ConfigError, IntegrityError
from registry_sync.release_manifest import ReleaseDirectory

if TYPE_CHECKING:
    from model_signing import signing

__all__ = ["require_signer", "sign_release", "verify_release"]


def require_signer(key: Path) -> None:
    """See that a release can be signed, before anything is exported for it.

    Raises:
        ConfigError: The key or the library is missing, or it is no such key.
    """
    _require_library("release.sign_key")
    if not key.is_file():
        raise ConfigError(f"release.sign_key: {key}: there is no such file")
    _open_key(key)


def sign_release(directory: ReleaseDirectory, key: Path) -> None:
    """Sign a release.

    Args:
        directory: Complete but for the signature.
        key: Elliptic-curve private key in PEM, without a password.

    Raises:
        ConfigError: It is no such key.
    """
    from model_signing import hashing

    config = hashing.Config().set_ignored_paths(paths=_list_ignored(directory))
    _open_key(key).set_hashing_config(config).sign(directory.path.resolve(), directory.signature)


def verify_release(directory: ReleaseDirectory, key: Path) -> None:
    """Check the signature of a release.

    Args:
        directory: Of the release.
        key: The public key in PEM.

    Raises:
        ConfigError: It is no such key, or the library is missing.
        IntegrityError: There is no signature, or it is not that of these files by that key.
    """
    _require_library("--public-key")
    from model_signing import hashing, verifying

    if not directory.signature.is_file():
        raise IntegrityError(f"{directory.path}: is not signed")
    config = hashing.Config().set_ignored_paths(paths=_list_ignored(directory))
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=key).set_hashing_config(config)
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(f"--public-key {key}: {error}") from error
    try:
        verifier.verify(directory.path.resolve(), directory.signature)
    except Exception as error:
        # Whatever it trips over in a file that anybody may have written, the signature does not hold.
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise IntegrityError(f"{directory.path}: the signature does not hold: {line}") from error


def _open_key(key: Path) -> "signing.Config":
    from model_signing import signing

    try:
        return signing.Config().use_elliptic_key_signer(private_key=key)
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(f"release.sign_key: {key}: {error}") from error


def _require_library(key: str) -> None:
    if importlib.util.find_spec("model_signing") is None:
        raise ConfigError(f"{key}: needs model-signing: pip install 'modelpress[sign]'")


def _list_ignored(directory: ReleaseDirectory) -> list[Path]:
    # The one is being made; the other comes later, and says nothing of the bytes.
    # Relative ones would be taken as relative to the directory.
    return [directory.signature.resolve(), directory.registration.resolve()]
