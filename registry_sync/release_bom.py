"""A release as a CycloneDX bill of materials: its models with their hashes, and the libraries they were proven with.

The library that writes it has no words for CycloneDX's model cards yet, so evidence goes into properties.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.dependency import Dependency
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from registry_sync.release_difference import describe_tensor
from registry_sync.release_manifest import Manifest, ReleasedModel

__all__ = ["SCHEMA", "render_bom"]

# What most readers of such files know.
SCHEMA = SchemaVersion.V1_6
# Of serial numbers: the same release has the same one.
_NAMESPACE = uuid.UUID("6f0d7a0e-0a5c-5f0e-9a52-3a0f6c1b7d11")


def render_bom(manifest: Manifest) -> str:
    """JSON; the same for the same manifest. Models that failed are not in it: they are not released."""
    models = [model for model in manifest.models if model.failure is None]
    libraries = {name: _describe_library(name, version) for name, version in _collect_versions(manifest, models)}
    described = [_describe_model(manifest, model) for model in models]
    release = Component(
        type=ComponentType.APPLICATION,
        name=manifest.name,
        version=manifest.version,
        bom_ref=f"release:{manifest.title}",
    )
    needed = [
        Dependency(component.bom_ref, [Dependency(libraries[key].bom_ref) for key in _list_keys(model)])
        for component, model in zip(described, models, strict=True)
    ]
    bom = Bom(
        serial_number=uuid.uuid5(_NAMESPACE, f"{manifest.title} {manifest.created_at}"),
        metadata=BomMetaData(component=release, timestamp=datetime.fromisoformat(manifest.created_at)),
        components=[*described, *libraries.values()],
        dependencies=[
            Dependency(release.bom_ref, [Dependency(one.bom_ref) for one in [*described, *_find_own(libraries)]]),
            *needed,
            *(Dependency(library.bom_ref) for library in libraries.values()),
        ],
    )
    return make_outputter(bom, OutputFormat.JSON, SCHEMA).output_as_string(indent=2) + "\n"


def _collect_versions(manifest: Manifest, models: Iterable[ReleasedModel]) -> Iterator[tuple[str, str]]:
    """Key of each library in each version that one of the models was proven with, without doubles."""
    versions = {key: key.rpartition("@")[2] for model in models for key in _list_keys(model)}
    own = manifest.versions.get("modelpress", "")
    if own:
        versions.setdefault(f"modelpress@{own}", own)
    yield from sorted(versions.items())


def _find_own(libraries: Mapping[str, Component]) -> list[Component]:
    """What made the release: without any model it would otherwise depend on nothing, which readers take for a gap."""
    return [component for key, component in libraries.items() if key.startswith("modelpress@")]


def _list_keys(model: ReleasedModel) -> list[str]:
    return [f"{name}@{version}" for name, version in sorted(model.versions.items()) if version]


def _describe_library(key: str, version: str) -> Component:
    name = key.rpartition("@")[0]
    if name == "python":
        return Component(type=ComponentType.PLATFORM, name=name, version=version, bom_ref=f"platform:{key}")
    purl = PackageURL(type="pypi", name=name.replace("_", "-"), version=version)
    return Component(type=ComponentType.LIBRARY, name=name, version=version, bom_ref=f"library:{key}", purl=purl)


def _describe_model(manifest: Manifest, model: ReleasedModel) -> Component:
    graph = next((file for file in model.files if file.path == "model.onnx"), None)
    files = [
        Component(
            type=ComponentType.FILE,
            name=file.path,
            bom_ref=f"file:{model.id}/{file.path}",
            hashes=[_make_hash(file.sha256)],
            properties=[Property(name="modelpress:size_bytes", value=str(file.size_bytes))],
        )
        for file in model.files
    ]
    issue = [ExternalReference(type=ExternalReferenceType.ISSUE_TRACKER, url=XsUri(model.issue))] if model.issue else []
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=model.id,
        version=manifest.version,
        bom_ref=f"model:{model.id}",
        hashes=[_make_hash(graph.sha256)] if graph is not None else [],
        components=files,
        external_references=issue,
        properties=[Property(name=f"modelpress:{name}", value=value) for name, value in _list_properties(model)],
    )


def _list_properties(model: ReleasedModel) -> Iterator[tuple[str, str]]:
    facts = {
        "verdict": model.verdict.value,
        "model": model.model,
        "precision": model.precision,
        "opset_version": str(model.opset_version),
        "max_abs_diff": _show(model.parity.max_abs_diff),
        "max_noise_ratio": _show(model.parity.max_noise_ratio),
        "num_cases": str(model.parity.num_cases),
        "num_parameters": str(model.measured.num_parameters),
        "checkpoint_sha256": model.checkpoint_sha256,
        "fingerprint": model.fingerprint,
        "git_commit": model.git_commit,
        "dvc_hash": model.dvc_hash,
        "mlflow_model_id": model.mlflow_model_id,
    }
    yield from ((name, value) for name, value in facts.items() if value)
    yield from (("input", describe_tensor(tensor)) for tensor in model.inputs)
    yield from (("output", describe_tensor(tensor)) for tensor in model.outputs)
    yield from ((f"source_sha256:{name}", value) for name, value in model.source_sha256.items())


def _make_hash(sha256: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=sha256)


def _show(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
