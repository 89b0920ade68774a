"""What a verdict rests on: plain data of each case, each output, each dim, and of where two values parted.

A part of `exporter.result`, which is written to result.json.
"""

from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "CaseRecord",
    "DimRecord",
    "Divergence",
    "Finding",
    "NoiseRecord",
    "NoiseVerdict",
    "OutputParity",
    "RoundingError",
    "WeightsMode",
    "WeightsRecord",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DimRecord:
    """A declared dim and the sizes at which parity held."""

    name: str
    min: int
    max: int
    example: int
    proven_sizes: list[int]


class NoiseVerdict(StrEnum):
    """What PyTorch's own rounding error says of an output; docs/parity.md has the limits."""

    # Right, whatever the tolerance says.
    right = "right"
    # Between the two, or not known: the tolerance decides.
    open = "open"
    # Wrong, even if within the tolerance.
    wrong = "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundingError:
    """How far float32 results are from those in float64, over the elements of one output."""

    rms: float
    max: float
    # The part that all elements share: in the mean of the errors, or along the exact values.
    drift: float
    # The largest error as a multiple of what rtol and atol allow that element; None where they allow nothing.
    in_tolerances: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseRecord:
    """One output in one case against the module run in float64."""

    num_elements: int
    # Root mean square and largest magnitude of the exact values.
    scale: float
    peak: float
    torch: RoundingError
    ort: RoundingError
    # ONNX Runtime's error in multiples of PyTorch's; None where PyTorch's is no measure.
    ratio: float | None = None
    verdict: NoiseVerdict = NoiseVerdict.open


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputParity:
    """One output in one case: ONNX Runtime against PyTorch.

    The differences are None where shape or dtype differ, or where they are not finite. The relative one is over the
    elements whose expected value is not zero.
    """

    output: str
    passed: bool
    num_elements: int
    num_mismatched: int
    max_abs_diff: float | None
    max_rel_diff: float | None
    # ||actual - expected|| / ||expected||, the Euclidean norms of the whole output; None also where it is infinite,
    # expected being all zero.
    rel_l2: float | None = None
    # The largest difference as a multiple of what rtol and atol allow its element; None also where they allow nothing,
    # or elements are not gated.
    in_tolerances: float | None = None
    # Empty if passed, else what is wrong in a few words.
    reason: str = ""
    # None where there was no float64 run to compare with, or the output has no float32 to compare.
    noise: NoiseRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRecord:
    """One assignment of sizes to the dims, and how each output compared there."""

    name: str
    sizes: dict[str, int]
    seed: int
    outputs: list[OutputParity]
    # Why there was no float64 run; empty where there was one, or none was asked for.
    noise_reason: str = ""

    @property
    def passed(self) -> bool:
        return all(output.passed for output in self.outputs)


class Finding(StrEnum):
    """What the search for a divergence came to."""

    # One value of the graph is not what torch makes of the values before it.
    value = "value"
    # The captured program gives other outputs than forward: something was fixed at capture.
    capture = "capture"
    # The file is right; what ONNX Runtime makes of it when it loads it is not.
    runtime = "runtime"
    # Each operator is right to within rounding: the errors add up.
    rounding = "rounding"
    # torch and ONNX Runtime agree on a NaN or an infinity, and this is where it begins.
    nonfinite = "nonfinite"
    # The search could not be made, or failed; the summary says why.
    unknown = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Where, in one case that parity failed in, torch and ONNX Runtime part first."""

    finding: Finding
    # One line that says it all.
    summary: str
    case: str
    # The rest is empty where no single value is to blame. Value and node are named as in the saved graph.
    value: str = ""
    node: str = ""
    op_type: str = ""
    # Dotted path of the torch module, and "file.py:12: code" of the line in it.
    module: str = ""
    source: str = ""
    # Other nodes that the value is made by, back to values that agree: the optimizer left nothing to compare there.
    suspects: list[str] = field(default_factory=list)
    # At the worst element; strings, because they may be NaN or infinite.
    expected: str = ""
    actual: str = ""
    max_abs_diff: float | None = None
    # The difference in roundings of the value's largest element, and the most that any value before it has.
    roundings: float | None = None
    roundings_before: float | None = None
    num_compared: int = 0
    num_sessions: int = 0


class WeightsMode(StrEnum):
    """How a module came by its weights."""

    # Mapped from a safetensors checkpoint, and copied from file to file.
    streamed = "streamed"
    loaded = "loaded"
    # Made by the constructor from the seed.
    seeded = "seeded"
    # In a module that was handed to `export`.
    given = "given"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsRecord:
    """How the module came by its weights, and for loaded ones why they were not streamed."""

    mode: WeightsMode
    reason: str = ""
