"""The bill of materials, held against CycloneDX's own schema."""

import dataclasses
import json

from cyclonedx.validation.json import JsonStrictValidator
from release_data import make_manifest, make_model

from exporter.errors import FailureKind
from exporter.failures import make_failure
from exporter.result import Step
from registry_sync.release_bom import SCHEMA, render_bom
from registry_sync.release_manifest import Verdict

FAILED = make_model(
    "bert", verdict=Verdict.failed, failure=make_failure(Step.capture, FailureKind.crashed, "x"), files=[]
)
MANIFEST = make_manifest(
    models=[
        make_model(),
        make_model("vit", versions={"torch": "2.14.0", "python": "3.11.7", "onnx_ir": "1.1.0"}),
        FAILED,
    ]
)


def find(bom: dict, reference: str) -> dict:
    return next(one for one in bom["components"] if one["bom-ref"] == reference)


def test_it_is_valid_by_the_schema() -> None:
    assert JsonStrictValidator(SCHEMA).validate_str(render_bom(MANIFEST)) is None
    assert JsonStrictValidator(SCHEMA).validate_str(render_bom(make_manifest(models=[]))) is None
    # The validator can find something.
    broken = render_bom(MANIFEST).replace('"machine-learning-model"', '"model"')
    assert JsonStrictValidator(SCHEMA).validate_str(broken) is not None


def test_models_have_their_hashes_and_the_libraries_that_they_were_proven_with() -> None:
    bom = json.loads(render_bom(MANIFEST))
    mlp = find(bom, "model:mlp")
    assert (mlp["type"], mlp["name"], mlp["version"]) == ("machine-learning-model", "mlp", "1")
    assert mlp["hashes"] == [{"alg": "SHA-256", "content": "1" * 64}]
    files = {file["name"]: file["hashes"][0]["content"] for file in mlp["components"]}
    assert files == {"model.onnx": "1" * 64, "result.json": "2" * 64}
    properties = [(one["name"], one["value"]) for one in mlp["properties"]]
    assert ("modelpress:input", "x: float32[batch, 8]") in properties
    assert ("modelpress:source_sha256:mlp.py", "a" * 64) in properties
    needed = {one["ref"]: one.get("dependsOn", []) for one in bom["dependencies"]}
    assert needed["model:mlp"] == ["library:onnx@1.23.2", "library:torch@2.13.0"]
    assert needed["model:vit"] == ["library:onnx_ir@1.1.0", "library:torch@2.14.0", "platform:python@3.11.7"]
    assert find(bom, "library:onnx_ir@1.1.0")["purl"] == "pkg:pypi/onnx-ir@1.1.0"
    assert needed["release:zoo-1"] == ["library:modelpress@0.1.0", "model:mlp", "model:vit"]


def test_what_failed_is_not_released() -> None:
    assert "model:bert" not in render_bom(MANIFEST)


def test_the_same_release_has_the_same_bytes_and_another_one_another_number() -> None:
    assert render_bom(MANIFEST) == render_bom(MANIFEST)
    other = json.loads(render_bom(dataclasses.replace(MANIFEST, version="2")))
    assert other["serialNumber"] != json.loads(render_bom(MANIFEST))["serialNumber"]
