"""The float64 run is float64 all through, leaves the module as it is, and says why where it cannot be had."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from exporter import float64_run
from exporter.arguments import Call
from exporter.float64_run import Float64Run
from exporter.spec import NoiseFloor


def run(module, **arguments):
    """The float64 run's outputs, and why there are none."""
    arguments = arguments or {"x": draw(3, 8)}
    with torch.inference_mode():
        returned = module.eval()(**copy.deepcopy(arguments))
    expected = [tensor.numpy() for tensor in torch.utils._pytree.tree_leaves(returned)]
    float64 = Float64Run(module, NoiseFloor.auto)
    return float64.run(Call((), arguments), expected), float64.reason


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class Module(nn.Module):
    """A function as a module, with a weight."""

    def __init__(self, function):
        super().__init__()
        self.weight = nn.Parameter(draw(8))
        self.function = function

    def forward(self, x):
        return self.function(x, self.weight)


def normalize(x, weight):
    # As in transformers' RMSNorm layers.
    wide = x.to(torch.float32)
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
    return weight * wide.to(x.dtype)


def add_constants(x, weight):
    return x + torch.tensor(0.5) + torch.arange(8, dtype=torch.float32) / 3 + torch.full((8,), 1 / 3, dtype=torch.half)


EXACT = [
    pytest.param(lambda x, weight: x.float() / 3 * weight.float(), id="float()"),
    pytest.param(normalize, id="to(float32)"),
    pytest.param(lambda x, weight: functional.softmax(x * weight, dim=-1, dtype=torch.float32), id="dtype="),
    pytest.param(lambda x, weight: (x * weight).type(torch.FloatTensor).exp(), id="type()"),
    pytest.param(lambda x, weight: torch.zeros(3, 8, dtype=torch.float32).add_(x).mul_(weight), id="in place"),
    pytest.param(lambda x, weight: x.half().float() * weight.bfloat16(), id="narrower than float32"),
    pytest.param(lambda x, weight: torch.fft.rfft(x * weight).abs(), id="complex"),
    pytest.param(lambda x, weight: functional.layer_norm(x, (8,), weight), id="layer norm"),
    pytest.param(
        lambda x, weight: functional.scaled_dot_product_attention(x[None], x[None] * weight, x[None]), id="attention"
    ),
    pytest.param(lambda x, weight: torch.cumsum(x * weight, 0, dtype=torch.float32).sum(1), id="reductions"),
]


@pytest.mark.parametrize("function", EXACT)
def test_what_asks_for_float32_inside_gets_float64(function):
    x, weight = draw(3, 8).double(), draw(8).double()

    class Wide(torch.overrides.TorchFunctionMode):
        """The same by another way: narrow dtypes and casts in Python code."""

        def __torch_function__(self, func, types, args=(), kwargs=None):
            narrow = {torch.float32, torch.float16, torch.bfloat16}
            if getattr(func, "__name__", "") in ("float", "half", "bfloat16", "type"):
                return args[0]
            args = [torch.float64 if isinstance(arg, torch.dtype) and arg in narrow else arg for arg in args]
            kwargs = {key: torch.float64 if key == "dtype" else value for key, value in (kwargs or {}).items()}
            return func(*args, **kwargs)

    with Wide():
        wanted = function(x, weight)
    found, reason = run(Module(function))
    assert reason == ""
    assert found[0].dtype == np.float64
    np.testing.assert_allclose(found[0], wanted.numpy(), rtol=1e-13, atol=1e-14)


def test_constants_made_inside_are_not_rounded_to_float32():
    found, _ = run(Module(add_constants))
    wanted = draw(3, 8).double().numpy() + 0.5 + np.arange(8) / 3 + 1 / 3
    np.testing.assert_allclose(found[0], wanted, rtol=1e-14)


def test_recurrence_runs_in_float64():
    torch.manual_seed(0)
    module = nn.GRU(8, 16, batch_first=True, bidirectional=True)
    found, reason = run(module, input=draw(2, 5, 8))
    wanted = copy.deepcopy(module).double()(draw(2, 5, 8).double())
    assert reason == ""
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other.detach().numpy(), rtol=1e-13, atol=1e-15)


def test_the_module_its_arguments_and_the_default_dtype_are_left_as_they_are():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 8)
            self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

        def forward(self, x):
            self.calls += 1
            return self.linear(x.mul_(2))

    module, x = Counts().eval(), draw(3, 8)
    state = copy.deepcopy(module.state_dict())
    found = Float64Run(module, NoiseFloor.auto).run(Call((), {"x": x}), [np.zeros((3, 8), np.float32)])
    assert found is not None
    assert torch.equal(x, draw(3, 8))
    assert torch.get_default_dtype() is torch.float32
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in state.items())
    assert all(value.dtype == module.state_dict()[name].dtype for name, value in state.items())


def test_tied_weights_stay_tied():
    class Ties(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
            self.second.weight = self.first.weight

    copied = float64_run._copy_wide(Ties())
    assert copied.first.weight is copied.second.weight
    assert copied.first.weight.dtype is torch.float64


def require_float32(x, weight):
    if x.dtype != torch.float32:
        raise ValueError("float32 only,\nplease")
    return x * weight


class WritesToAPlainTensor(nn.Module):
    def __init__(self):
        super().__init__()
        self.sums = torch.zeros(3, 8)

    def forward(self, x):
        return self.sums.zero_().add_(x) * 1.0


class CannotBeCopied(nn.Module):
    def __init__(self):
        super().__init__()
        self.scaled = nn.Parameter(draw(8)) * 2

    def forward(self, x):
        return x * self.scaled


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Module(require_float32), "the float64 run failed: ValueError: float32 only, please"),
        (WritesToAPlainTensor(), "writes to a torch.float32 tensor that is neither parameter nor buffer"),
        (CannotBeCopied(), "the float64 run failed: RuntimeError: Only Tensors created explicitly by the user"),
        (Module(lambda x, weight: x.view(torch.int32).float()), "it reads the bits of a tensor as another dtype"),
        (Module(lambda x, weight: x.double() * weight), "no output is float32"),
        (
            Module(lambda x, weight: x if x.dtype is torch.float32 else x[:2]),
            "output 0 does not match in the float64 run and PyTorch's own: float64[2, 8] and float32[3, 8]",
        ),
        (
            Module(lambda x, weight: x if x.dtype is torch.float32 else (x, x)),
            "the float64 run gives 2 tensors, not 1",
        ),
    ],
)
def test_why_there_is_no_float64_run_is_said_in_one_line(module, reason):
    found, said = run(module)
    assert found is None
    assert reason in said
    assert "\n" not in said
    assert torch.get_default_dtype() is torch.float32


def test_after_a_failure_no_further_run_is_tried():
    calls = []
    module = Module(lambda x, weight: calls.append(x.dtype) or require_float32(x, weight))
    float64 = Float64Run(module.eval(), NoiseFloor.auto)
    for _ in range(2):
        assert float64.run(Call((), {"x": draw(3, 8)}), [np.zeros((3, 8), np.float32)]) is None
        assert "float32 only" in float64.reason
    assert calls == [torch.float64]


class Room:
    """A memory that says what it is told to."""

    free_bytes = used_bytes = peak_bytes = 0

    def read_free_bytes(self):
        return self.free_bytes

    def read_used_bytes(self):
        return self.used_bytes

    def read_peak_bytes(self):
        return self.peak_bytes


@pytest.mark.parametrize(("free", "what"), [(2**20, "a float64 copy of the weights needs 0 MiB and room to spare; 1")])
def test_too_little_memory_is_a_reason_and_is_looked_at_anew_in_each_case(free, what):
    room = Room()
    float64 = Float64Run(Module(lambda x, weight: x * weight).eval(), NoiseFloor.auto, room)
    expected = [np.zeros((3, 8), np.float32)]
    room.free_bytes = free
    assert float64.run(Call((), {"x": draw(3, 8)}), expected) is None
    assert float64.reason == f"{what} MiB are free"
    room.free_bytes = 2**40
    assert float64.run(Call((), {"x": draw(3, 8)}), expected) is not None
    assert float64.reason == ""
    room.peak_bytes = 2**42
    assert float64.run(Call((), {"x": draw(3, 8)}), expected) is None
    assert float64.reason.startswith("the float64 run needs ")


def test_off_is_no_run_and_no_reason():
    float64 = Float64Run(Module(require_float32), NoiseFloor.off)
    assert float64.run(Call((), {"x": draw(3, 8)}), [np.zeros((3, 8), np.float32)]) is None
    assert float64.reason == ""
