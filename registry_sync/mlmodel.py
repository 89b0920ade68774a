"""What MLflow wants beside the files of a model: MLmodel and the environment it ran in, written by us.

`mlflow.onnx.log_model` would load the model and write it anew, under another name and with other bytes than were
proven. What is written here names the files that are there already.
"""

from pathlib import Path

import mlflow
import yaml
from mlflow.models import Model, ModelSignature

from exporter.result import ExportResult

__all__ = ["write_model_files"]

_MODEL = "model.onnx"
_CONDA, _PYTHON, _REQUIREMENTS = "conda.yaml", "python_env.yaml", "requirements.txt"
# What a proof was made on where the result does not say: no session was opened.
_DEFAULT_PROVIDERS = ["CPUExecutionProvider"]


def write_model_files(
    folder: Path, model_id: str, run_id: str | None, result: ExportResult, signature: ModelSignature | None
) -> None:
    """Write MLmodel, requirements.txt, conda.yaml and python_env.yaml beside the model.

    Args:
        folder: The model's; `model.onnx` is in it.
        model_id: Of the LoggedModel that it will be.
        run_id: Of the run it came from, if any.
        result: Of the export.
        signature: None where MLflow cannot express any of it.
    """
    model = Model(
        artifact_path=None,
        run_id=run_id,
        signature=signature,
        # The moment of the export, and the id as the model's own: the file depends on nothing else.
        utc_time_created=result.ended_at,
        model_uuid=model_id.removeprefix("m-"),
        model_id=model_id,
        metadata={"export": result.id, "fingerprint": result.provenance.fingerprint},
        model_size_bytes=sum(file.size_bytes for file in result.files),
    )
    # What mlflow.pyfunc.add_to_model would write, but with the export's Python and not ours.
    model.add_flavor(
        "python_function",
        loader_module="mlflow.onnx",
        data=_MODEL,
        env={"conda": _CONDA, "virtualenv": _PYTHON},
        python_version=result.versions.get("python", ""),
    )
    model.add_flavor(
        "onnx",
        onnx_version=result.versions.get("onnx", ""),
        data=_MODEL,
        # The ones that parity ran on, and no others.
        providers=list(result.ort_providers) or _DEFAULT_PROVIDERS,
        onnx_session_options=None,
    )
    model.save(str(folder / "MLmodel"))
    _write_environment(folder, result.versions)


def _write_environment(folder: Path, versions: dict[str, str]) -> None:
    requirements = [f"mlflow=={mlflow.__version__}", _pin("onnx", versions), _pin("onnxruntime", versions)]
    python = versions.get("python", "")
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}" if python else "python", "pip", {"pip": requirements}],
    }
    environment = {
        "python": python,
        "build_dependencies": ["pip", "setuptools", "wheel"],
        "dependencies": [f"-r {_REQUIREMENTS}"],
    }
    (folder / _REQUIREMENTS).write_text("\n".join(requirements) + "\n", encoding="utf-8")
    (folder / _CONDA).write_text(yaml.safe_dump(conda, sort_keys=False), encoding="utf-8")
    (folder / _PYTHON).write_text(yaml.safe_dump(environment, sort_keys=False), encoding="utf-8")


def _pin(name: str, versions: dict[str, str]) -> str:
    version = versions.get(name, "")
    return f"{name}=={version}" if version else name
