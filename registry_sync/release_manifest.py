"""The record of one release: what releases/<name>-<version>/manifest.json holds, and the names of the files beside it.

Plain data. A manifest never changes once it is written; what becomes of a release later (registered, promoted) is kept
elsewhere. The bytes themselves are not in the release's directory: exports/ has them until the next export of that
model, DVC and MLflow's registry for good, and the manifest names them there.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from exporter.errors import ConfigError
from exporter.evidence import DimRecord
from exporter.files import read_json, write_json
from exporter.plain_data import DataError, from_plain
from exporter.result import Failure, FileRecord, Rung, TensorRecord
from registry_sync.options import TrackingOptions

__all__ = [
    "RELEASES",
    "Change",
    "Manifest",
    "Measurements",
    "ParitySummary",
    "Registration",
    "ReleaseDirectory",
    "ReleasedModel",
    "Verdict",
    "find_releases",
    "require_release_name",
]

# In the working directory, beside conf/ and dvc.yaml: it belongs into git, and every command looks there.
RELEASES = Path("releases")
SCHEMA_VERSION = 1
# Of the directory; a dot or a dash at the start would hide it, or make an option of it.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
# A directory's name has 255 bytes at most, and a tag's in MLflow 250.
_MAX_NAME = 100


class Verdict(StrEnum):
    """What a release says of one model."""

    # It passed, and is within its budgets.
    accepted = "accepted"
    # It passed, and has moved too far from the last release in which it was accepted.
    over_budget = "over_budget"
    failed = "failed"
    # It failed as the release's config says that it does.
    known_failure = "known_failure"

    @property
    def words(self) -> str:
        """As a person reads it."""
        return self.value.replace("_", " ")

    @property
    def is_good(self) -> bool:
        """Whether the release passes with such a model."""
        return self in (Verdict.accepted, Verdict.known_failure)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference of a model from the release that it was compared with."""

    # signature, dims, opset, ops, parity, memory, latency, size, precision.
    what: str
    before: str
    after: str
    # What the budget allows, in words; empty where the difference is within it, or has none.
    exceeded: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParitySummary:
    """ONNX Runtime against PyTorch over all cases; None where it could not be taken, or did not come to it."""

    num_cases: int = 0
    max_abs_diff: float | None = None
    max_rel_diff: float | None = None
    max_rel_l2: float | None = None
    # ONNX Runtime's largest error in multiples of PyTorch's own.
    max_noise_ratio: float | None = None
    # The error that came nearest to its limit, as a part of it.
    max_limit_share: float | None = None
    # The tolerance that it was held against; None: not gated.
    rtol: float | None = None
    atol: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """What the export cost, and what the model does; None where it was not measured."""

    # Above the worker's start, from build to save.
    export_peak_bytes: int | None = None
    parity_peak_bytes: int | None = None
    # Median of one ONNX Runtime call on the example inputs.
    latency_s: float | None = None
    duration_s: float = 0.0
    # The graph and its external data.
    size_bytes: int = 0
    num_parameters: int = 0
    num_nodes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedModel:
    """One export in a release. Of a failed one, what it never reached is empty or None."""

    # The export's id.
    id: str
    model: str
    verdict: Verdict
    # In this run; False: it was up to date, and its evidence is that of an earlier one.
    is_new: bool
    precision: str
    opset_version: int
    failure: Failure | None = None
    # Every file of the export's directory, by its path in it, but pages: these are made from the others.
    files: list[FileRecord] = field(default_factory=list)
    inputs: list[TensorRecord] = field(default_factory=list)
    outputs: list[TensorRecord] = field(default_factory=list)
    # Ranges as declared, and the sizes at which parity held.
    dims: list[DimRecord] = field(default_factory=list)
    op_counts: dict[str, int] = field(default_factory=dict)
    parity: ParitySummary = field(default_factory=ParitySummary)
    measured: Measurements = field(default_factory=Measurements)
    # The ways round a failure that the export needed.
    rescued_by: list[Rung] = field(default_factory=list)
    # Of fingerprint.json: sha256 of the source files by their names (`modelpress`: the exporter itself), of the files
    # that the config names to the model, and of the checkpoint (empty without one).
    source_sha256: dict[str, str] = field(default_factory=dict)
    data_sha256: dict[str, str] = field(default_factory=dict)
    checkpoint_sha256: str = ""
    # sha256 of all that the export depends on.
    fingerprint: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    # Of the code that made the export, which may be older than the release.
    git_commit: str = ""
    git_dirty: bool = False
    # Of the export's directory, for example 1f0c....dir; where DVC is behind, that by which it will have these bytes.
    # Empty: DVC is off, or cannot have them.
    dvc_hash: str = ""
    # What dvc.lock says of its stage: the hashes of what it was made from, and of what it is. Empty: it has no
    # stage, or DVC was behind.
    dvc_lock: dict[str, Any] = field(default_factory=dict)
    # The run that logged the export and its LoggedModel; empty where MLflow was off or away.
    mlflow_run_id: str = ""
    mlflow_model_id: str = ""
    # The version of the release that it was compared with: the last in which this model was accepted. Empty: none.
    baseline: str = ""
    changes: list[Change] = field(default_factory=list)
    # In what way the failure is one: new, recurring, flaky, known, expired. Of a model that passed: fixed, or empty.
    failure_history: str = ""
    # The declared failure's, where it is known.
    issue: str = ""
    expires: str = ""

    @property
    def model_files(self) -> list[FileRecord]:
        """The model in all its forms, without the evidence."""
        return [file for file in self.files if re.fullmatch(r"model(\.\w+)?\.onnx(\.data)?", file.path)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A release."""

    name: str
    version: str
    # UTC, ISO 8601; releases are in this order, so it is later than that of the one before, whatever the clock says.
    created_at: str
    # The version of the release before it; empty: it is the first.
    previous: str
    # Whether it passed: every model is accepted, or fails as declared.
    passed: bool
    # The batch that made it.
    run_id: str
    git_commit: str
    command: list[str]
    # Where the exports lie, relative to the working directory.
    exports: str
    # Where the files of numbers for `dvc metrics` lie.
    metrics: str
    # Names of exports that the release before it had and this one has not.
    removed: list[str]
    models: list[ReleasedModel]
    versions: dict[str, str]
    # Where it is to be registered; without credentials.
    tracking: TrackingOptions
    # The batch's run; empty where MLflow was off or away.
    mlflow_run_id: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def title(self) -> str:
        """As its directory is named."""
        return f"{self.name}-{self.version}"

    def find(self, export_id: str) -> ReleasedModel | None:
        return next((model for model in self.models if model.id == export_id), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """Which versions in MLflow's registry a release's models are; there once all are registered."""

    registered_at: str
    # From an export's id to the name of the registered model, and to its version.
    names: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ReleaseDirectory:
    """releases/<name>-<version>/: the only place that knows the names of its files."""

    path: Path

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def sums(self) -> Path:
        """For `sha256sum -c` in the working directory: the release's own files, and those in exports/."""
        return self.path / "SHA256SUMS"

    @property
    def bom(self) -> Path:
        """CycloneDX, JSON."""
        return self.path / "bom.cdx.json"

    @property
    def notes(self) -> Path:
        """What changed, in Markdown."""
        return self.path / "changes.md"

    @property
    def page(self) -> Path:
        """The same as one self-contained HTML file."""
        return self.path / "changes.html"

    @property
    def signature(self) -> Path:
        """Of the whole directory, by the OpenSSF's model-signing; there only where a key was given."""
        return self.path / "model.sig"

    @property
    def registration(self) -> Path:
        """Not a part of what is released: written when MLflow has all of it."""
        return self.path / "registration.json"

    @property
    def own_files(self) -> tuple[Path, ...]:
        """What SHA256SUMS covers of the directory."""
        return self.manifest, self.bom, self.notes, self.page

    @property
    def is_release(self) -> bool:
        """Whether it is one, if only the ruin of one: a person may have a folder of their own beside them."""
        return any(path.is_file() for path in (*self.own_files, self.sums))

    def read_manifest(self) -> Manifest:
        """Read manifest.json.

        Raises:
            DataError: It is broken, or of another schema.
            FileNotFoundError: There is none.
        """
        data = read_json(self.manifest)
        version = data.get("schema_version") if isinstance(data, dict) else None
        if version != SCHEMA_VERSION:
            raise DataError(f"{self.manifest}: schema_version is {version!r}, this modelpress reads {SCHEMA_VERSION}")
        return from_plain(Manifest, data, str(self.manifest))

    def write_manifest(self, manifest: Manifest) -> None:
        write_json(self.manifest, manifest, is_durable=True)

    def read_registration(self) -> Registration | None:
        """What is registered; None where MLflow does not have all of it."""
        try:
            return from_plain(Registration, read_json(self.registration), str(self.registration))
        except FileNotFoundError:
            return None

    def write_registration(self, registration: Registration) -> None:
        write_json(self.registration, registration, is_durable=True)


def find_releases(root: Path, name: str | None = None) -> list[tuple[ReleaseDirectory, Manifest]]:
    """The releases under a directory, oldest first; of one name, or all.

    Raises:
        DataError: A manifest is broken.
    """
    found = [
        (directory, directory.read_manifest())
        for directory in map(ReleaseDirectory, sorted(root.glob("[!.]*")))
        if directory.manifest.is_file()
    ]
    chosen = [(directory, manifest) for directory, manifest in found if name in (None, manifest.name)]
    return sorted(chosen, key=lambda one: (one[1].created_at, one[1].title))


def require_release_name(text: str, key: str) -> None:
    """Hold the name or the version of a release against what a directory may be called.

    Raises:
        ConfigError: It will not do.
    """
    if not _NAME.fullmatch(text):
        raise ConfigError(f"{key}: {text!r}: letters, digits, dot, dash, plus and underscore only")
    if len(text) > _MAX_NAME:
        raise ConfigError(f"{key}: {text[:20]}...: has {len(text)} characters, {_MAX_NAME} are allowed")
