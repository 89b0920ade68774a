"""The part of repro.py that judges by PyTorch's own rounding error, where that decided and not the tolerance.

The same sums as in `exporter.noise_floor`, by whole arrays; a test holds the two together.
"""

from exporter.evidence import CaseRecord, NoiseVerdict
from exporter.repro_code import fill_in
from exporter.result import ExportResult
from exporter.spec import NoiseFloor

__all__ = ["is_noise_judged", "render_judgement", "render_noise"]

_JUDGE = """\
if USUAL_NOISE[index] is not None:
    ratio, is_fine = compare_noise(wide, other, exact[index].numpy(), USUAL_NOISE[index])
    print(f"output {index}: {ratio:.3g} times PyTorch's own rounding error (limit {MAX_NOISE_RATIO:g})")
    passes = ratio <= MAX_NOISE_RATIO and (passes or is_fine)
"""

_NOISE = '''\
# Above which multiple of PyTorch's own rounding error an output is wrong, whatever the tolerance says; and that error
# over all cases of the export, relative to each output's scale. None: only the tolerance judges.
MAX_NOISE_RATIO = $limit
USUAL_NOISE = $usual
WIDE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}


def widen(values):
    def one(value):
        if isinstance(value, torch.Tensor):
            return value.to(WIDE.get(value.dtype, value.dtype))
        return WIDE.get(value, value) if isinstance(value, torch.dtype) else value

    return pytree.tree_map(one, values)


class Widening(TorchDispatchMode):
    """Whatever forward itself casts to float32 stays float64."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*widen(args), **widen(kwargs or {}))


def run_float64(module):
    """What forward returns with next to no rounding error."""
    args, kwargs = widen(arguments(module, make_inputs(*CASE)))
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), Widening():
            leaves = pytree.tree_leaves(copy.deepcopy(module).double()(*args, **kwargs))
    finally:
        torch.set_default_dtype(torch.float32)
    return [real(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor)]


def compare_noise(expected, actual, exact, usual):
    """ONNX Runtime's error in multiples of PyTorch's, the largest of three kinds; and whether it is as good as that."""
    exact, eps = exact.ravel(), 2.0**-23
    errors = [found.ravel() - exact for found in (expected, actual)]
    scale, peak = np.sqrt(np.mean(exact**2)), np.abs(exact).max()
    typical, extreme, drift = (
        [measure(error) for error in errors]
        for measure in (
            lambda error: np.sqrt(np.mean(error**2)),
            lambda error: np.abs(error).max(),
            lambda error: max(abs(error.mean()), abs(error @ exact) / (len(exact) * scale) if scale else 0.0),
        )
    )
    share = min(1.0, max(1 / 8, 4 / np.sqrt(len(exact))))
    ratio = max(
        typical[1] / max(typical[0], usual * scale, eps * scale, eps / 8),
        extreme[1] / max(extreme[0], usual * scale, eps * peak, eps / 8),
        drift[1] / max(drift[0], share * max(typical[0], usual * scale), eps * scale, eps / 8),
    )
    worst = [(np.abs(error) / (ATOL + RTOL * np.abs(exact))).max() for error in errors]
    return ratio, ratio <= MAX_NOISE_RATIO / 6 and worst[1] <= MAX_NOISE_RATIO / 6 * worst[0]
'''


def is_noise_judged(result: ExportResult, case: CaseRecord) -> bool:
    """Whether PyTorch's own rounding error, and not the tolerance, decided on an output of a case."""
    return result.spec.parity.noise_floor is NoiseFloor.auto and any(
        output.noise is not None
        and (output.noise.verdict, output.num_mismatched > 0)
        in ((NoiseVerdict.wrong, False), (NoiseVerdict.right, True))
        for output in case.outputs
    )


def render_noise(result: ExportResult) -> str:
    """The functions that measure both errors."""
    # Needs numpy, which whoever writes the bundle of a crashed worker does not load; that has no cases.
    from exporter.noise_floor import find_usual_noise

    usual = find_usual_noise(result.cases)
    names = [output.output for output in result.cases[0].outputs]
    return fill_in(
        _NOISE, limit=repr(result.spec.parity.max_noise_ratio), usual=repr([usual.get(name) for name in names])
    )


def render_judgement() -> str:
    """The lines that judge one output."""
    return _JUDGE
