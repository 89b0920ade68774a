"""An exported model to call, optimize and save: the counterpart of `torch.onnx.ONNXProgram` for a proven file.

The file is the program. Nothing of it is in memory but what is asked for, and weights are mapped, not copied.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import nn

from exporter import streaming
from exporter.arrays import run_session, to_array, to_tensor
from exporter.binding import bind
from exporter.directory import ExportDirectory
from exporter.errors import ConfigError, StepError
from exporter.eval_mode import in_eval_mode
from exporter.model_copy import copy_model
from exporter.parity import open_session
from exporter.passes import name_passes, run_passes
from exporter.proof import prove
from exporter.result import ExportResult, PassRecord, Status, TensorRecord
from exporter.save import separate_outputs, write_program
from exporter.temporary_folder import TemporaryFolder
from exporter.validation import find_pass_problems

__all__ = ["Program"]

# What a protobuf message may have.
_MAX_PROTO_BYTES = 2**31 - 1


class Program:
    """A model that was exported; call it with torch tensors as you call the module.

    `exporter.export` and `exporter.open_program` make these.

    Args:
        directory: Holds the file.
        result: Of the export.
        module: The original, where it still exists; `prove` uses it.
        threads: Of one operator of ONNX Runtime; None: as many as torch uses.
        folder: Kept as long as this object, where the directory is a temporary one.
    """

    def __init__(
        self,
        directory: ExportDirectory,
        result: ExportResult,
        module: nn.Module | None = None,
        *,
        threads: int | None = None,
        folder: TemporaryFolder | None = None,
    ) -> None:
        self._directory = directory
        self._result = result
        self._module = module
        self._threads = threads
        self._folder = folder
        self._proof: ExportResult | None = result
        self._session: ort.InferenceSession | None = None

    def __repr__(self) -> str:
        takes, gives = _show(self._result.inputs), _show(self._result.outputs)
        return f"Program({self._result.id}({takes}) -> ({gives}); {self._describe_proof() or 'proven'})"

    @property
    def path(self) -> Path:
        """The ONNX file; the weights may be in a file beside it. Temporary, unless `export` was given a directory."""
        return self._directory.model

    @property
    def proof(self) -> ExportResult | None:
        """What check and parity say of the file as it is; None after `optimize` has changed it, until `prove`."""
        return self._proof

    @property
    def is_proven(self) -> bool:
        """The file, as it is, agreed with PyTorch in every case."""
        return self._proof is not None and self._proof.status is Status.passed

    @property
    def input_names(self) -> list[str]:
        """Of the graph, in its order."""
        return [one.name for one in self._open().get_inputs()]

    @property
    def output_names(self) -> list[str]:
        """Of the graph, in the order in which a call gives the tensors."""
        return [one.name for one in self._open().get_outputs()]

    @property
    def model(self) -> ir.Model:
        """The graph for onnx_ir, weights mapped; read anew each time, so changing it does not change the program."""
        model = ir.load(self._directory.model)
        # The weights are read when they are asked for, which may be after this object is gone.
        model.meta["modelpress.folder"] = self._folder
        return model

    @property
    def model_proto(self) -> onnx.ModelProto:
        """The model with its weights as one protobuf message; read anew each time, so it costs their size each time.

        Raises:
            ValueError: It is larger than protobuf's 2 GiB; `model` and `save` have no such limit.
        """
        size = sum(path.stat().st_size for path in self._files())
        if size > _MAX_PROTO_BYTES:
            raise ValueError(
                f"the model has {size / 2**30:.1f} GiB, a protobuf message at most 2; use .model (weights mapped) or "
                ".save(path), and onnx.load(path, load_external_data=False)"
            )
        return onnx.load(self._directory.model)

    def __call__(self, *args: object, **kwargs: object) -> tuple[torch.Tensor, ...]:
        """Run the program in ONNX Runtime on the CPU.

        Args:
            *args: As `forward` takes them, nested in the same way; on any device.
            **kwargs: The same by name.

        Returns:
            The graph's outputs in its order (`output_names`), also where it is one only. A complex output is a real
            tensor with a last axis of 2, as in the graph: `torch.view_as_complex` makes it complex.

        Raises:
            TypeError: An argument is missing, unknown, of the wrong form or of the wrong dtype.
            ValueError: A shape is not the declared one, or a constant not the one in the graph.
            RuntimeError: ONNX Runtime cannot load the file, or fails on these inputs.
        """
        tensors = bind(self._result.spec.model, self._result.arguments, args, kwargs)
        session = self._open()
        try:
            found = run_session(session, {name: to_array(tensor) for name, tensor in tensors.items()})
        except Exception as error:
            raise RuntimeError(f"ONNX Runtime: {error}") from error
        return tuple(to_tensor(array) for array in found.values())

    def optimize(self, passes: str | Sequence[str] = "default") -> list[PassRecord]:
        """Run passes over the program, in place, and tell what each changed.

        The export has run those of `export.optimize` already, `default` unless the spec says otherwise. If the file
        changes, it is no longer the one that was proven: `is_proven` is false until `prove` passes. The new file lies
        in a temporary folder.

        Args:
            passes: `default`, or a list; docs/passes.md has the names.

        Raises:
            ConfigError: There is no such pass.
            RuntimeError: A pass failed; the program is as before.
        """
        problems = list(find_pass_problems(passes if isinstance(passes, str) else list(passes)))
        if problems:
            raise ConfigError("\n".join(problems))
        model = ir.load(self._directory.model)
        properties, output_names = dict(model.metadata_props), [str(value.name) for value in model.graph.outputs]
        program = torch.onnx.ONNXProgram(model, None)
        separate_outputs(model.graph)
        try:
            records = list(run_passes(program, name_passes(passes)))
        except StepError as error:
            raise RuntimeError(str(error)) from error
        folder = TemporaryFolder()
        changed = ExportDirectory(folder.path)
        write_program(program, output_names, changed, properties)
        if self._hashes(changed) != self._hashes(self._directory):
            self._directory, self._folder = changed, folder
            self._proof = self._session = None
            self._result = replace(self._result, passes=[*self._result.passes, *records])
        return records

    def prove(self) -> ExportResult:
        """Check the file as it is, and hold it against PyTorch in every case, by the same gates as the export.

        Takes the module that was exported, or builds it from the spec's source.

        Returns:
            Passed or failed; it is `proof` from now on.

        Raises:
            ConfigError: There is neither a module nor a source to build one from.
        """
        spec = self._result.spec
        if self._module is None and "_target_" not in spec.model.source:
            raise ConfigError("the module is not there any more: give it to open_program(directory, module)")
        module = self._module if self._module is not None else streaming.build(spec).module
        with in_eval_mode(module):
            self._proof = prove(self._directory, self._result, module, self._num_threads())
        return self._proof

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to a file of any name, and its weights beside it to the same name with `.data`.

        Under the name model.onnx the bytes are those of the export. Warns where the file is not proven as it is.

        Returns:
            The path.
        """
        doubt = self._describe_proof()
        if doubt:
            warnings.warn(f"{path}: {doubt}", stacklevel=2)
        copy_model(self._directory, Path(path))
        return Path(path)

    def _describe_proof(self) -> str:
        """What is to be said against the program; empty if nothing."""
        if self._proof is None:
            return "not proven since optimize(); prove() holds it against PyTorch"
        return "" if self.is_proven else f"not proven: {self._proof.failure}"

    def _open(self) -> ort.InferenceSession:
        if self._session is None:
            try:
                # Weights mapped, as parity did.
                self._session = open_session(self._directory.model, prepack=False, threads=self._num_threads())
            except StepError as error:
                raise RuntimeError(str(error)) from error
        return self._session

    def _num_threads(self) -> int:
        return self._threads if self._threads is not None else torch.get_num_threads()

    def _files(self) -> list[Path]:
        return [path for path in (self._directory.model, self._directory.model_data) if path.exists()]

    @staticmethod
    def _hashes(directory: ExportDirectory) -> list[str]:
        names = (directory.model.name, directory.model_data.name)
        return [record.sha256 for record in directory.record_files() if record.path in names]


def _show(tensors: Sequence[TensorRecord]) -> str:
    return ", ".join(f"{one.name}: {one.dtype}[{', '.join(map(str, one.shape))}]" for one in tensors)
