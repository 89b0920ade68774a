"""The page for people: the verdict first, the evidence after, and no markup from a model's own words."""

from dataclasses import replace

import pytest

from exporter import Failure, FailureKind, Status, Step
from exporter.evidence import CaseRecord, DimRecord, OutputParity
from exporter.failures import make_failure
from exporter.report import render_report
from exporter.result import RescueRecord, Rung, StepRecord


def failed(result, **changes):
    failure = Failure(step=Step.parity, kind=FailureKind.parity_failed, cause="output 'y' is off", hint="look")
    return replace(result, **{"status": Status.failed, "failure": failure, **changes})


def test_a_report_of_a_pass_has_verdict_evidence_and_files(perceptron):
    result = perceptron.result
    text = render_report(result)
    assert text.splitlines()[0] == "# tiny: passed"
    assert f"Exported in {result.duration_s:.2f} s; every output agreed with PyTorch in 6 cases." in text
    assert "| input | x | float32 | [n, 8] |" in text
    assert "| output | y | float32 | [n, 16] |" in text
    assert "| n | 1 to 16 | 4 | 1, 2, 4, 5, 7, 16 |" in text
    assert "| between | n=7 | y | passed |" in text
    for file in result.files:
        assert f"| {file.path} | {file.size_bytes} | {file.sha256} |" in text
    assert "144 parameters" in text
    assert f"| torch | {result.versions['torch']} |" in text


def test_the_report_on_disk_is_the_one_of_the_result(perceptron):
    assert perceptron.directory.report.read_text(encoding="utf-8") == render_report(perceptron.result)


def test_a_report_of_a_failure_has_what_to_do_and_no_files(perceptron):
    text = render_report(failed(perceptron.result))
    assert text.splitlines()[0] == "# tiny: failed"
    for line in ("- step: parity", "- kind: `parity_failed`", "- cause: output 'y' is off", "- what to do: look"):
        assert line in text.splitlines()
    assert "## Files" not in text
    assert "agreed with PyTorch" not in text


def test_operators_and_fingerprint_of_a_failure_are_told(perceptron):
    failure = make_failure(Step.capture, FailureKind.unsupported_op, "no function", ops=["aten.a", "aten.b"])
    lines = render_report(failed(perceptron.result, failure=failure)).splitlines()
    assert "- operators: aten.a, aten.b" in lines
    assert f"- fingerprint: `{failure.fingerprint}`" in lines


def test_what_an_export_needed_is_told_with_the_failure_and_the_steps_of_each_attempt(perceptron):
    rescue = RescueRecord(
        rung=Rung.no_optimize, step=Step.parity, kind=FailureKind.parity_failed, cause="off | by 1", helped=True
    )
    steps = [StepRecord(step=Step.save, duration_s=0.5, peak_rss_bytes=None, attempt=n) for n in (1, 2)]
    text = render_report(replace(perceptron.result, rescues=[rescue], steps=steps))
    assert "in 6 cases. It needed: no_optimize." in text
    assert "| no_optimize | parity: parity_failed | off \\| by 1 | yes |" in text
    assert "| save | 0.500 | - |" in text
    assert "| save, attempt 2 | 0.500 | - |" in text


def test_a_failure_before_any_step_says_so(perceptron):
    failure = Failure(step=None, kind=FailureKind.killed, cause="signal 9", hint="look")
    assert "- step: before the first" in render_report(failed(perceptron.result, failure=failure, steps=[]))


def test_sections_without_content_are_left_out(perceptron):
    text = render_report(
        failed(perceptron.result, cases=[], dims=[], inputs=[], outputs=[], passes=[], steps=[], versions={})
    )
    assert "## " not in text


def test_a_miss_is_told_with_its_reason_in_the_table(perceptron):
    output = OutputParity(
        output="y",
        passed=False,
        num_elements=4,
        num_mismatched=4,
        max_abs_diff=None,
        max_rel_diff=None,
        reason="torch gives float32[4]",
    )
    case = CaseRecord(name="minimum", sizes={"n": 1, "m": 2}, seed=0, outputs=[output])
    text = render_report(failed(perceptron.result, cases=[case]))
    assert "| minimum | n=1, m=2 | y | torch gives float32[4] | - | - | - | 4 |" in text


@pytest.mark.parametrize(
    ("sizes", "shown"), [([], "none"), ([1, 4, 8], "1, 4, 8 (not at 16)"), ([1, 4, 16], "1, 4, 16")]
)
def test_a_dim_is_shown_with_the_sizes_it_was_proven_at(perceptron, sizes, shown):
    dims = [DimRecord(name="n", min=1, max=16, example=4, proven_sizes=sizes)]
    assert f"| n | 1 to 16 | 4 | {shown} |" in render_report(failed(perceptron.result, dims=dims))


def test_memory_is_told_above_both_starts_and_unknown_where_it_was_not_read(perceptron):
    measured = {"start_rss_bytes": 3 * 2**19, "start_anon_bytes": 2**20, "peak_anon_bytes": 3 * 2**19}
    steps = [
        StepRecord(step=Step.build, duration_s=0.25, peak_rss_bytes=3 * 2**20, **measured),
        StepRecord(step=Step.capture, duration_s=1, peak_rss_bytes=None),
        StepRecord(step=Step.save, duration_s=1, peak_rss_bytes=2**19),
    ]
    text = render_report(replace(perceptron.result, steps=steps, baseline_rss_bytes=2**20))
    assert "| build | 0.250 | 2.0 | 1.5 | 0.5 |" in text
    assert "| capture | 1.000 | - | - | - |" in text
    assert "| save | 1.000 | 0.0 | - | - |" in text


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("<script>x</script>", "&lt;script&gt;x&lt;/script&gt;"),
        ("a | b", "a \\| b"),
        ("`code`", "'code'"),
        ("&lt;", "&amp;lt;"),
        ("one\n# two", "one # two"),
    ],
)
def test_a_cause_is_not_markup(perceptron, raw, safe):
    failure = Failure(step=Step.build, kind=FailureKind.build_error, cause=raw, hint=raw)
    text = render_report(failed(perceptron.result, failure=failure))
    assert f"- cause: {safe}\n" in text
    assert f"- what to do: {safe}\n" in text
    assert raw not in text


def test_every_row_of_a_table_has_as_many_cells_as_its_header(perceptron):
    result = replace(perceptron.result, versions={"a|b": "1|2"})
    table = render_report(result).split("## Versions\n\n")[1].splitlines()
    assert table == ["| library | version |", "|---|---|", "| a\\|b | 1\\|2 |"]


def test_pytorchs_error_stands_beside_that_of_onnx_runtime(perceptron):
    text = render_report(perceptron.result)
    assert "## Noise floor (limit 24)" in text
    noise = perceptron.result.cases[1].outputs[0].noise
    errors = (noise.ratio, noise.torch.rms, noise.ort.rms, noise.torch.max, noise.ort.max)
    assert f"| minimum | y | right | {' | '.join(f'{error:.3g}' for error in errors)} |" in text


def test_why_there_is_no_noise_floor_is_told_once(perceptron):
    cases = [
        replace(case, outputs=[replace(output, noise=None) for output in case.outputs], noise_reason="no | room")
        for case in perceptron.result.cases
    ]
    text = render_report(replace(perceptron.result, cases=[perceptron.result.cases[0], *cases[1:]]))
    assert text.count("No noise floor from case minimum on: no \\| room.") == 1
    text = render_report(replace(perceptron.result, cases=cases))
    assert "No noise floor from case example on: no \\| room." in text
    assert "## Noise floor" not in text


def test_constants_are_said_to_be_baked(perceptron):
    model = replace(perceptron.spec.model, constants={"scale": 2.5, "mask": None})
    lines = render_report(replace(perceptron.result, spec=replace(perceptron.spec, model=model))).splitlines()
    assert "| baked | scale | float | 2.5 |" in lines
    assert "| baked | mask | NoneType | None |" in lines
