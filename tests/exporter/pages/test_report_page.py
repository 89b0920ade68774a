"""The page of an export: the verdict, the numbers, nothing hidden in silence, and no word of a model's that acts."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from page_text import read_page
from report_data import HOSTILE, make_case, make_failed_result, make_hostile_result, make_output, make_result

from exporter.directory import ExportDirectory
from exporter.evidence import DimRecord
from exporter.files import write_json
from exporter.pages import __main__ as command
from exporter.pages.parity_view import view_parity
from exporter.pages.report_page import render_report_page, render_stored_page
from exporter.pages.signature_view import view_dims
from exporter.result import PassRecord, Status, Step, StepRecord, TensorRecord


def read(result):
    return read_page(render_report_page(result))


def test_a_page_of_a_pass_says_so_and_why_and_has_the_numbers():
    text = read(make_result()).text
    for words in (
        "bert passed",
        "ONNX Runtime agrees with PyTorch on its output in each of 2 cases, with at most 25 % of the error that",
        "1.5 times PyTorch's own rounding error",
        "Every dim was proven from its minimum to its maximum.",
        "Worst error 25 % of its limit",
        "Size 3.00 MiB 123,456 parameters",
        "Nodes 42 99 captured",
        "Time 5.25 s 4.50 s of CPU",
        "Latency 1.23 ms",
        "input x float32 [batch, 8]",
        "baked in mode str 'fast'",
        "batch 1 to 64 1, 2, 5, 64",
        "parity 500 ms 70.0 MiB 60.0 MiB 5.00 MiB",
        "Gemm 30",
        "default 99 → 42 7 Identity -57",
        f"model.onnx 3.00 MiB {'ab' * 32}",
        "torch 2.13.0",
        "c0ffee with uncommitted changes",
    ):
        assert words in text, words


def test_a_page_of_a_failure_says_what_where_and_what_to_do():
    text = read(make_failed_result()).text
    for words in (
        "vit failed",
        "It ended in the parity step; nothing was published.",
        "output 'logits' is off",
        "What to do try none",
        "Kind parity_failed",
        "Operators Gemm",
        "parts at node_7.",
        "model.py:7: return x",
        "3 of 1234 elements out of tolerance",
        "no_optimize parity: parity_failed off no",
    ):
        assert words in text, words


def test_what_is_not_proven_is_not_called_passed():
    result = make_failed_result(status=Status.unproven, cases=[], divergence=None)
    text = read(result).text
    assert "vit unproven" in text
    assert "nothing is proven" in text
    assert "agrees with PyTorch" not in text


def test_a_dim_that_was_not_tried_at_its_maximum_is_named():
    dims = [DimRecord(name="seq", min=1, max=512, example=4, proven_sizes=[1, 4])]
    text = read(make_result(dims=dims)).text
    assert "Not tried at the maximum, for its size: seq." in text
    assert "not at 512" in text


def test_a_result_that_never_reached_anything_has_a_page():
    result = make_failed_result(
        failure=replace(make_failed_result().failure, step=None),
        divergence=None,
        rescues=[],
        cpu_s=None,
        latency_s=None,
        weights=None,
        torchscript=None,
        **{key: [] for key in ("steps", "inputs", "outputs", "dims", "cases", "passes")},
        op_counts={},
        num_nodes=0,
    )
    page = read(result)
    assert "It ended before the first step" in page.text
    assert page.unbalanced == []


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_model_says_is_text(text):
    html = render_report_page(make_hostile_result(text))
    page, plain = read_page(html), read(make_hostile_result("plain"))
    assert page.unbalanced == []
    assert page.active == []
    assert set(page.tags) == set(plain.tags)
    assert "{{" not in text or "{{ 7 * 7 }}" in page.text
    # Nothing turns around what follows it, and UTF-8 has all of it.
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b]", html)
    html.encode()
    assert len(html) < 10 * len(render_report_page(make_hostile_result("plain")))


def test_the_policy_of_a_page_allows_its_own_style_and_nothing_else():
    html = render_report_page(make_result())
    policy = re.search('Content-Security-Policy" content="([^"]*)"', html)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "script-src" not in policy
    assert "unsafe" not in policy
    assert "<script" not in html
    assert " style=" not in html


def test_thousands_of_everything_are_cut_and_the_rest_is_counted():
    outputs = [make_output(f"output_{place}", share=place / 10_000) for place in range(3000)]
    outputs[7] = make_output("lost", share=3.0, passed=False)
    many = make_failed_result(
        cases=[make_case("example", *outputs)],
        outputs=[TensorRecord(name=f"o{place}", dtype="float32", shape=[1]) for place in range(3000)],
        dims=[DimRecord(name=f"d{place}", min=1, max=2, example=1, proven_sizes=[1, 2]) for place in range(3000)],
        steps=[replace(make_result().steps[0], attempt=place) for place in range(3000)],
        op_counts={f"Op{place}": place for place in range(3000)},
        passes=[replace(make_result().passes[0], name=f"p{place}") for place in range(3000)],
    )
    html = render_report_page(many)
    text = read_page(html).text
    for words in (
        "Left out here: 2,976 more comparisons",
        "Left out here: 2,800 more comparisons, all of which passed",
        "Left out here: 2,502 more inputs and outputs",
        "Left out here: 2,800 more dims",
        "Left out here: 2,900 more steps",
        "Left out here: 2,980 more kinds of operators, 4,438,710 nodes together",
        "Left out here: 2,900 more passes",
    ):
        assert words in text, words
    # The one that failed is among those that are shown.
    assert "lost" in text
    assert len(html) < 1_000_000


def test_failed_comparisons_without_room_are_counted_as_failed():
    outputs = [make_output(f"o{place}", passed=False) for place in range(300)]
    text = read(make_failed_result(cases=[make_case("example", *outputs)])).text
    assert "Left out here: 100 more comparisons, of which 100 failed" in text


def test_a_pass_that_changed_much_says_how_much_is_left_out():
    changes = {f"Op{place}": place for place in range(1, 31)}
    record = PassRecord(
        name="p",
        num_nodes_before=1,
        num_nodes_after=2,
        num_initializers_before=1,
        num_initializers_after=1,
        op_changes=changes,
    )
    text = read(make_result(passes=[record])).text
    assert "Op30 +30" in text
    assert "and 18 more" in text


def test_the_picture_places_errors_by_powers_of_ten_and_the_limit_among_them():
    outputs = [make_output(str(share), share=share) for share in (0.0, 0.001, 0.01, 10.0)]
    outputs.append(make_output("lost", share=None, passed=False))
    view = view_parity(make_failed_result(cases=[make_case("example", *outputs)]))
    zero, least, low, high, beyond = (mark.x for mark in view.marks)
    assert zero < least < low < view.limit_x < high <= beyond < 100
    # Equal steps for equal factors.
    assert low - least == pytest.approx(high - view.limit_x, abs=0.02)
    assert [tick.label for tick in view.ticks] == ["0.1 %", "1 %", "10 %", "limit", "10 \N{MULTIPLICATION SIGN}"]


def test_an_output_with_two_gates_is_shown_by_the_one_it_comes_nearer_to():
    result = make_result(cases=[make_case("example", make_output(share=0.2, rel_l2=0.03))])
    result.spec.precision.max_rel_l2 = 0.1
    assert view_parity(result).worst.share == pytest.approx(0.3)


def test_of_many_proven_sizes_the_first_and_the_last_are_shown_and_all_are_counted():
    sizes = list(range(1, 4097, 7))
    dims = [DimRecord(name="seq", min=1, max=4096, example=4, proven_sizes=sizes)]
    text = read(make_result(dims=dims)).text
    assert "seq 1 to 4,096 1, 8, 15, 22, 29, 36, 43, 50, 57, 64, …, 4096 (586 sizes)" in text
    (row,) = view_dims(make_result(dims=dims))
    assert (row.marks[0], row.marks[-1], len(row.marks)) == (3.0, 97.0, 50)


@pytest.mark.parametrize(("count", "is_tall"), [(23, False), (24, True)])
def test_a_long_signature_scrolls_under_its_headings(count, is_tall):
    # Beside an input and a constant.
    outputs = [TensorRecord(name=f"y{place}", dtype="float32", shape=[2]) for place in range(count)]
    page = render_report_page(make_result(outputs=outputs))
    assert ('class="scroll tall"' in page) == is_tall


def test_memory_that_was_not_read_is_a_dash():
    steps = [StepRecord(step=Step.build, duration_s=1.0, peak_rss_bytes=None)]
    assert "build 1.00 s \N{EN DASH} \N{EN DASH} \N{EN DASH}" in read(make_result(steps=steps)).text


def test_an_export_has_the_page_of_its_result(perceptron):
    page = perceptron.directory.page.read_text(encoding="utf-8")
    assert page == render_report_page(perceptron.result)
    assert page == render_report_page(perceptron.directory.read_result())
    text = read_page(page).text
    assert "tiny passed" in text
    assert "n 1 to 16" in text


def test_the_page_of_a_failed_export_is_written_too(tmp_path):
    from exporter.conductor import write_result

    write_result(ExportDirectory(tmp_path), make_failed_result())
    assert "vit failed" in read_page((tmp_path / "report.html").read_text()).text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "There is no result.json."),
        ("", "cannot be read"),
        ('{"schema_version": 1, "spec": {', "not valid JSON"),
        ('{"schema_version": 99, "versions": {"modelpress": "9"}}', "schema_version is 99, this modelpress reads 1"),
        ('{"schema_version": 0}', "schema_version is 0"),
        ("[]", "schema_version is None"),
    ],
)
def test_a_result_that_cannot_be_read_has_a_page_that_says_so(tmp_path, content, words):
    if content is not None:
        (tmp_path / "result.json").write_text(content)
    page = read_page(render_stored_page(ExportDirectory(tmp_path)))
    assert words in page.text
    assert "cannot be read" in page.text
    assert page.unbalanced == []


def test_pages_are_rendered_again_from_results_on_disk(tmp_path, capsys):
    write_json(tmp_path / "result.json", make_result())
    (tmp_path / "report.html").write_text("older")
    command.main([str(tmp_path)])
    assert capsys.readouterr().out == f"{tmp_path}/report.html\n"
    assert "bert passed" in read_page((tmp_path / "report.html").read_text()).text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "result.json"]


def test_a_folder_that_is_not_there_is_told_in_a_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "exporter.pages", str(tmp_path / "no")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no such directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_result_of_an_earlier_modelpress_has_a_page(tmp_path):
    # Before shares were recorded.
    write_json(tmp_path / "result.json", make_result())
    data = json.loads((tmp_path / "result.json").read_text())
    for case in data["cases"]:
        for output in case["outputs"]:
            del output["in_tolerances"]
    (tmp_path / "result.json").write_text(json.dumps(data))
    text = read_page(render_stored_page(ExportDirectory(tmp_path))).text
    assert "bert passed" in text
    assert "not recorded" in text


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "-1.5", "1e-320", "8.4e6", "1" + "0" * 400]
)
def test_whatever_number_a_record_holds_there_is_a_page(tmp_path, number):
    directory = ExportDirectory(tmp_path / "bert")
    directory.path.mkdir()
    write_json(directory.result, make_result())
    text = directory.result.read_text()
    for key in ("in_tolerances", "max_abs_diff", "rel_l2", "rms", "scale", "ratio", "duration_s", "latency_s", "cpu_s"):
        text = re.sub(rf'("{key}": )[-\d.e]+', rf"\g<1>{number}", text)
    directory.result.write_text(text)
    page = read_page(render_stored_page(directory))
    assert "bert" in page.text
    assert page.unbalanced == []
    assert ("cannot be read" in page.text) == (len(number) > 400)
    assert "Worst error 8.4 million \N{MULTIPLICATION SIGN} of its limit" in page.text or number != "8.4e6"
