"""A user's own operators: a table that fits exports and is proven; one that does not is a clear failure."""

import faulty_models
import own_operators
import pytest

from exporter import ExportDirectory, ExportOptions, FailureKind, Status, Step
from exporter.conductor import run_export


def spec_with(table, **arguments):
    spec = faulty_models.make_spec()
    target = {"_target_": f"own_operators.{table}", **arguments}
    spec.export = ExportOptions(custom_translation_table=target if table else None)
    return spec


def test_an_operator_of_ones_own_exports_and_is_proven(tmp_path):
    spec = spec_with("make_table")
    result = run_export(spec, tmp_path, own_operators.Shrinks(), threads=1)
    assert (result.status, result.failure, result.rescues) == (Status.passed, None, [])
    assert result.op_counts["Sign"] == 1
    assert result.dims[0].proven_sizes == [1, 2, 4, 5, 7, 16]
    assert ExportDirectory(tmp_path).read_spec() == spec


def test_a_wrong_function_for_it_is_caught_by_parity(tmp_path):
    result = run_export(spec_with("make_table", slope=1.01), tmp_path, own_operators.Shrinks(), threads=1)
    assert result.failure.kind is FailureKind.parity_failed


def test_without_a_table_the_operator_is_named_and_the_table_is_what_to_try(tmp_path):
    failure = run_export(spec_with(None), tmp_path, own_operators.Shrinks(), threads=1).failure
    assert (failure.kind, failure.ops) == (FailureKind.unsupported_op, ["own_operators.shrink.default"])
    assert "export.custom_translation_table" in failure.hint


def test_a_function_on_sizes_can_be_translated_too(tmp_path):
    result = run_export(spec_with("make_root_table"), tmp_path, own_operators.TakesRoot(), threads=1)
    assert (result.status, result.failure) == (Status.passed, None)


WRONG = [
    ("make_list", FailureKind.table_error, "own_operators.make_list gives a list, not a dict {OpOverload: function}"),
    ("make_trouble", FailureKind.table_error, "own_operators.make_trouble raised ValueError: no such operator"),
    ("make_table_of_numbers", FailureKind.table_error, "the function for own_operators.shrink.default is a int"),
    (
        "make_table_of_a_packet",
        FailureKind.table_error,
        "has overloads; name one: torch.ops.own_operators.shrink.defau",
    ),
    ("make_table_by_name", FailureKind.table_error, "the key 'own_operators::shrink' is a str; keys are operators"),
    ("make_tabel", FailureKind.import_error, "'own_operators.make_tabel': no 'make_tabel' in own_operators"),
]


@pytest.mark.parametrize(("table", "kind", "cause"), WRONG)
def test_what_is_no_table_is_refused_before_the_capture(tmp_path, table, kind, cause):
    result = run_export(spec_with(table), tmp_path, own_operators.Shrinks(), threads=1)
    assert (result.failure.step, result.failure.kind) == (Step.build, kind)
    assert result.failure.cause.startswith("export.custom_translation_table: ")
    assert cause in result.failure.cause
    assert [record.step for record in result.steps] == [Step.build]


def test_a_function_that_raises_is_a_translation_error_with_its_words(tmp_path):
    failure = run_export(spec_with("make_failing_table"), tmp_path, own_operators.Shrinks(), threads=1).failure
    assert (failure.kind, failure.cause) == (FailureKind.translation_error, "ValueError: cannot translate")
