"""What goes with a device; that it works on a GPU is tested where there is one."""

from dataclasses import replace

import faulty_models
import pytest
import torch
from safetensors.torch import save_file

from exporter import Device, Step, parity
from exporter.build import build_module
from exporter.cases import Case
from exporter.conductor import describe_result
from exporter.device import CPU_PROVIDERS, CudaMemory, choose_memory, choose_providers, exact_float32, place_module
from exporter.errors import FailureKind
from exporter.evidence import WeightsMode
from exporter.failures import make_failure
from exporter.inputs import make_inputs
from exporter.report import render_report
from exporter.repro import render_script
from exporter.steps import StepFailed, StepRecorder
from exporter.streaming import build
from registry_sync.metrics import collect_metrics, collect_step_metrics

MIB = 2**20


class Allocator:
    """Stands for torch.cuda: what its allocator says, whether CUDA has started or not."""

    def __init__(self, *, is_started=True):
        self.is_started = is_started
        self.allocated = self.peak = self.reserved = 0

    def is_initialized(self):
        return self.is_started

    def allocate(self, size):
        self.allocated += size
        self.reserved = max(self.reserved, self.allocated)
        self.peak = max(self.peak, self.allocated)

    def fail_after(self, size):
        self.allocate(size)
        self.allocate(-size)
        raise RuntimeError("planted")

    def reset_peak_memory_stats(self):
        if not self.is_started:
            raise RuntimeError("CUDA has not started")
        self.peak = self.allocated

    def memory_allocated(self):
        return self.allocated

    def memory_reserved(self):
        return self.reserved

    def max_memory_allocated(self):
        return self.peak

    def mem_get_info(self):
        return 100 * MIB - self.reserved, 100 * MIB


def test_each_step_has_its_own_peak_on_the_gpu():
    allocator = Allocator(is_started=False)
    recorder = StepRecorder(gpu=CudaMemory(allocator))
    with recorder.step(Step.build):
        allocator.is_started = True
        allocator.allocate(8 * MIB)
    with recorder.step(Step.capture):
        pass
    with pytest.raises(StepFailed), recorder.step(Step.parity):
        allocator.fail_after(30 * MIB)
    assert [record.cuda_peak_bytes for record in recorder.records] == [8 * MIB, 8 * MIB, 38 * MIB]


def test_a_step_on_the_cpu_says_nothing_of_a_gpu():
    recorder = StepRecorder()
    with recorder.step(Step.build):
        pass
    assert recorder.records[0].cuda_peak_bytes is None


def test_what_the_allocator_keeps_counts_as_free():
    allocator = Allocator()
    memory = CudaMemory(allocator)
    allocator.allocate(40 * MIB)
    allocator.allocate(-30 * MIB)
    assert memory.read_free_bytes() == 90 * MIB
    assert memory.read_used_bytes() == 10 * MIB
    assert memory.read_peak_bytes() == 40 * MIB


def test_the_memory_of_the_cpu_is_the_machines():
    memory = choose_memory(Device.cpu)
    assert memory.read_peak_bytes() >= memory.read_used_bytes() - MIB > 0
    assert memory.read_free_bytes() > 0


def test_the_cuda_provider_is_taken_where_it_is_wanted_and_installed():
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    first, *rest = choose_providers(Device.cuda, both)
    assert first == ("CUDAExecutionProvider", {"use_tf32": "0"})
    assert rest == list(CPU_PROVIDERS)
    assert choose_providers(Device.cuda, ["CPUExecutionProvider"]) == CPU_PROVIDERS
    assert choose_providers(Device.cpu, both) == CPU_PROVIDERS


def read_precisions():
    backends = torch.backends
    return [one.fp32_precision for one in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)]


def test_float32_is_exact_in_the_body_and_what_it_was_after_it():
    before = read_precisions()
    assert "tf32" in before
    with exact_float32(Device.cuda):
        assert read_precisions() == ["ieee"] * 3
    assert read_precisions() == before
    with pytest.raises(KeyError), exact_float32(Device.cuda):
        raise KeyError
    assert read_precisions() == before
    with exact_float32(Device.cpu):
        assert read_precisions() == before


def test_a_module_for_the_cpu_stays_as_it_is():
    module = torch.nn.Linear(2, 2)
    address = module.weight.data_ptr()
    assert place_module(module, Device.cpu) is module
    assert module.weight.data_ptr() == address


def test_weights_for_a_gpu_are_loaded_and_the_reason_is_given(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(build_module(faulty_models.make_spec().model).state_dict(), path)
    spec = faulty_models.make_spec(weights=str(path))
    assert build(spec).record.mode is WeightsMode.streamed
    spec.export.device = Device.cuda
    record = build(spec).record
    assert record.mode is WeightsMode.loaded
    assert record.reason == "export.device is cuda, and only weights on the CPU are streamed"


def test_a_gpu_without_room_is_out_of_memory_and_no_fault_of_forward():
    class Fills(torch.nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    spec, module = faulty_models.make_spec(), Fills()
    arguments = parity.arguments_of(module, spec.model)
    case = Case("example", {"n": 4}, 0)
    with pytest.raises(StepFailed) as caught, StepRecorder().step(Step.parity):
        parity.run_torch(module, arguments, make_inputs(spec.model, case), case)
    assert caught.value.failure.kind is FailureKind.out_of_memory


def test_what_onnx_runtime_ran_on_is_in_the_result(perceptron):
    assert perceptron.result.ort_providers == ["CPUExecutionProvider"]
    assert "PyTorch ran on" not in render_report(perceptron.result)
    assert "GPU" not in render_report(perceptron.result)
    assert not [name for name in collect_metrics(perceptron.result) if "cuda" in name]


def test_the_gpus_peaks_are_in_the_report_and_the_metrics(perceptron):
    result = perceptron.result
    spec = replace(result.spec, export=replace(result.spec.export, device=Device.cuda))
    steps = [replace(record, cuda_peak_bytes=(index + 1) * MIB) for index, record in enumerate(result.steps)]
    moved = replace(result, spec=spec, steps=steps)
    report = render_report(moved)
    assert "| peak on the GPU, MiB |" in report
    assert f"| {moved.steps[2].cuda_peak_bytes / MIB:.1f} |" in report
    assert "PyTorch ran on cuda, ONNX Runtime on CPUExecutionProvider." in report
    assert collect_metrics(moved)["cuda_peak_bytes"] == len(steps) * MIB
    assert collect_step_metrics(moved)["build_cuda_peak_bytes"] == MIB


def test_the_repro_of_a_failure_on_the_gpu_says_that_it_runs_elsewhere():
    spec = faulty_models.make_spec()
    failure = make_failure(Step.parity, FailureKind.parity_failed, "planted")
    assert "cuda" not in render_script(describe_result(spec, failure, 0.0))
    spec.export.device = Device.cuda
    script = render_script(describe_result(spec, failure, 0.0))
    compile(script, "repro.py", "exec")
    assert "the GPU: all of this runs on the CPU" in " ".join(script.replace("#", " ").split())
