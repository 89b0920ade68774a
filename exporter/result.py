"""What happened to one export: plain data, written to result.json by the worker and read by everything else."""

from dataclasses import dataclass, field
from enum import StrEnum

from exporter.errors import FailureKind
from exporter.evidence import CaseRecord, DimRecord, Divergence, WeightsRecord
from exporter.spec import ExportSpec

__all__ = [
    "SCHEMA_VERSION",
    "ExportResult",
    "Failure",
    "FileRecord",
    "PassRecord",
    "Provenance",
    "RescueRecord",
    "Rung",
    "Status",
    "Step",
    "StepRecord",
    "TensorRecord",
    "TorchScriptRecord",
]

# Raised when a field changes its meaning; a reader refuses a newer one.
SCHEMA_VERSION = 1


class Step(StrEnum):
    """The parts of one export, in order."""

    build = "build"
    capture = "capture"
    optimize = "optimize"
    save = "save"
    check = "check"
    parity = "parity"
    measure = "measure"


class Rung(StrEnum):
    """Known ways round a failure, in the order in which they are tried."""

    # Attention is captured through torch's math backend, which lays out its result as a plain product.
    math_attention = "math_attention"
    # Attention is taken apart into products and a softmax, instead of translated as one operator.
    decomposed_attention = "decomposed_attention"
    # Dynamo captures `forward` from its bytecode, instead of torch.export from a run of it.
    strict_capture = "strict_capture"
    # The capture runs with gradients on, so that `torch.enable_grad()` in `forward` changes nothing.
    grad_capture = "grad_capture"
    # The optimize step runs no passes.
    no_optimize = "no_optimize"


class Status(StrEnum):
    """The verdict."""

    passed = "passed"
    failed = "failed"
    # Cannot tell: nothing was found wrong, and ONNX Runtime cannot run the file here, so nothing is proven.
    unproven = "unproven"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an export did not pass; `exporter.failures.make_failure` puts one together."""

    # None where the process ended before any step began.
    step: Step | None
    kind: FailureKind
    cause: str
    hint: str
    # The operators at fault, all of them, where it is about operators.
    ops: list[str] = field(default_factory=list)
    # The same for the same failure over runs, machines and sizes.
    fingerprint: str = ""

    def __str__(self) -> str:
        return f"{self.step or 'start'}: {self.kind}: {self.cause}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What one step cost."""

    step: Step
    duration_s: float
    # Resident memory at its highest within the step, of the whole process (the kernel's VmHWM, reset as the step
    # begins); None where the kernel does not say, as with all that follow.
    peak_rss_bytes: int | None
    # Resident memory of the whole process as the step began, and its anonymous part: what no file backs.
    start_rss_bytes: int | None = None
    start_anon_bytes: int | None = None
    # The anonymous part at its highest among samples 10 ms apart: the true peak is this or more.
    peak_anon_bytes: int | None = None
    # Memory of the GPU at its highest within the step, as torch's allocator counts it; None where the model is on the
    # CPU. Neither CUDA itself nor ONNX Runtime is in it.
    cuda_peak_bytes: int | None = None
    # Counts from 1; each rung of the rescue ladder is one attempt more, whose steps come after those before.
    attempt: int = 1

    @property
    def delta_bytes(self) -> int | None:
        """What the step needed beyond what was there as it began, at its peak."""
        return _difference(self.peak_rss_bytes, self.start_rss_bytes)

    @property
    def delta_anon_bytes(self) -> int | None:
        """The same of anonymous memory alone, which the kernel cannot drop when memory is short."""
        return _difference(self.peak_anon_bytes, self.start_anon_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class RescueRecord:
    """A way round a failure that was tried."""

    rung: Rung
    # The failure that led to it.
    step: Step
    kind: FailureKind
    cause: str
    # Whether the attempt got past that failure.
    helped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRecord:
    """What one pass of the optimize step changed."""

    name: str
    num_nodes_before: int
    num_nodes_after: int
    num_initializers_before: int
    num_initializers_after: int
    # How many nodes of an operator came or went; operators whose count stayed are left out.
    op_changes: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRecord:
    """An input or output of the saved graph; symbolic axes are strings."""

    name: str
    dtype: str
    shape: list[int | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentRecord:
    """A parameter of `forward`; the kind is named as in `inspect.Parameter`, in lower case."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What the export was made from, beside its spec and the versions; empty outside of git, or without a batch."""

    git_commit: str = ""
    # Tracked files differed from the commit.
    git_dirty: bool = False
    # The sha256 of fingerprint.json's parts.
    fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """A file of the export, by its name in the export's directory."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchScriptRecord:
    """What the TorchScript exporter needs for the same model, and the dynamo exporter measured in the same way.

    Each exported the model to a file in a fresh process. Peaks are resident memory above that process's imports, the
    model and its inputs included; so are the modules that torch imports when an export begins.
    """

    peak_bytes: int | None = None
    duration_s: float | None = None
    dynamo_peak_bytes: int | None = None
    dynamo_duration_s: float | None = None
    # Why a number is missing; empty if none is.
    reason: str = ""

    @property
    def dynamo_share(self) -> float | None:
        """The dynamo exporter's peak as a part of TorchScript's: 0.03 is 3 %."""
        return self.dynamo_peak_bytes / self.peak_bytes if self.dynamo_peak_bytes and self.peak_bytes else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """The whole story of one export. What a failed one never reached is empty or None."""

    spec: ExportSpec
    status: Status
    failure: Failure | None = None
    # UTC, ISO 8601.
    started_at: str
    ended_at: str
    duration_s: float
    # CPU time from the first step to the last, user and system, ended child processes included; None where no worker
    # lived to tell.
    cpu_s: float | None = None
    # Resident memory before the first step: what the interpreter and its imports cost by themselves.
    baseline_rss_bytes: int = 0
    # In the order in which they ran. A step that ran again in a later attempt is there again.
    steps: list[StepRecord] = field(default_factory=list)
    # The ways round a failure that were tried, in order; empty where none was needed.
    rescues: list[RescueRecord] = field(default_factory=list)
    # What forward takes, whether the spec says something of it or not.
    arguments: list[ArgumentRecord] = field(default_factory=list)
    inputs: list[TensorRecord] = field(default_factory=list)
    outputs: list[TensorRecord] = field(default_factory=list)
    dims: list[DimRecord] = field(default_factory=list)
    cases: list[CaseRecord] = field(default_factory=list)
    # Searched for where parity failed.
    divergence: Divergence | None = None
    files: list[FileRecord] = field(default_factory=list)
    capture_strategy: str = ""
    weights: WeightsRecord | None = None
    num_parameters: int = 0
    num_nodes: int = 0
    # Nodes before the optimize step; equal to num_nodes where it changed nothing.
    num_nodes_captured: int = 0
    op_counts: dict[str, int] = field(default_factory=dict)
    # What the optimize step ran, in order.
    passes: list[PassRecord] = field(default_factory=list)
    # Median time of one ONNX Runtime call on the example inputs.
    latency_s: float | None = None
    # What ONNX Runtime ran on in parity, by priority; empty where no session was opened.
    ort_providers: list[str] = field(default_factory=list)
    # None unless export.compare_torchscript asked for it and the export passed.
    torchscript: TorchScriptRecord | None = None
    # Whether the weights were laid out for speed, which takes a copy of them in memory; not for large streamed ones.
    latency_prepacked: bool = True
    versions: dict[str, str] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)
    schema_version: int = SCHEMA_VERSION

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def rescued_by(self) -> list[Rung]:
        """The ways round a failure that a passed export needed."""
        return [record.rung for record in self.rescues if record.helped] if self.status is Status.passed else []

    @property
    def size_bytes(self) -> int:
        """Size of the model: the graph and its external data."""
        return sum(file.size_bytes for file in self.files if file.path.startswith("model.onnx"))

    @property
    def max_abs_diff(self) -> float | None:
        """The largest difference over all outputs and cases; None where none could be taken."""
        return self._largest("max_abs_diff")

    @property
    def max_rel_diff(self) -> float | None:
        """The largest relative difference over all outputs and cases; None where none could be taken."""
        return self._largest("max_rel_diff")

    @property
    def max_noise_ratio(self) -> float | None:
        """ONNX Runtime's largest error in multiples of PyTorch's own; None where that is not known."""
        noises = [output.noise for case in self.cases for output in case.outputs if output.noise is not None]
        return max((noise.ratio for noise in noises if noise.ratio is not None), default=None)

    @property
    def max_rel_l2(self) -> float | None:
        """The largest error of a whole output over all cases; None where none could be taken."""
        return self._largest("rel_l2")

    def peak_bytes(self, *steps: Step) -> int | None:
        """Peak memory of the given steps above the baseline; None where it was not read."""
        peaks = [
            record.peak_rss_bytes for record in self.steps if record.step in steps and record.peak_rss_bytes is not None
        ]
        return max(0, max(peaks) - self.baseline_rss_bytes) if peaks else None

    @property
    def export_peak_bytes(self) -> int | None:
        """Peak memory above the baseline from build to save: what making the file needs."""
        return self.peak_bytes(Step.build, Step.capture, Step.optimize, Step.save)

    @property
    def parity_peak_bytes(self) -> int | None:
        """Peak memory above the baseline in parity: what proving the file needs."""
        return self.peak_bytes(Step.parity)

    @property
    def cuda_peak_bytes(self) -> int | None:
        """Peak of torch's memory on the GPU over all steps; None where the model was on the CPU."""
        return max((one.cuda_peak_bytes for one in self.steps if one.cuda_peak_bytes is not None), default=None)

    def _largest(self, name: str) -> float | None:
        values = [getattr(output, name) for case in self.cases for output in case.outputs]
        return max((value for value in values if value is not None), default=None)


def _difference(peak: int | None, start: int | None) -> int | None:
    return None if peak is None or start is None else max(0, peak - start)
