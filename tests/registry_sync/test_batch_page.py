"""The page of a batch: what failed first, each number with its change, and a matrix where there is one to see."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from batch_data import make_run
from page_text import read_page
from records import CANCELLED, FAILED, PASSED, UP_TO_DATE, make_batch
from report_data import HOSTILE

from exporter.errors import FailureKind
from registry_sync.batch_page import render_batch_page, write_batch_page
from registry_sync.changes import Baseline, read_export
from registry_sync.record import ExportRecord, Outcome, RunDirectory

BEFORE = replace(PASSED, max_limit_share=0.02, max_noise_ratio=1.5)
# Each number by more than it moves by itself.
NOW = replace(
    BEFORE,
    max_limit_share=0.08,
    max_noise_ratio=0.5,
    export_peak_bytes=300 * 2**20,
    size_bytes=1_500 * 2**10,
    num_nodes=45,
    duration_s=24.68,
    latency_s=0.00041,
)


def read(*exports: ExportRecord, baseline: Baseline | None = None):
    return read_page(render_batch_page(make_batch(*exports), baseline))


def compare_with(*exports: ExportRecord) -> Baseline:
    return Baseline(title="batch 20251231-000000-ffff", exports={one.id: read_export(one) for one in exports})


def test_what_failed_stands_first_and_says_why():
    page = read(UP_TO_DATE, PASSED, CANCELLED, FAILED)
    assert "1 failed 1 cancelled 1 passed 1 up to date" in page.text
    assert "2 of 4 exports are not proven: 1 crashed." in page.text
    rows = [page.text.index(f"{name} opset") for name in ("vit", "clip", "mlp-opset18", "bert")]
    assert rows == sorted(rows)
    assert "vit capture: crashed the worker died of [bold]SIGSEGV h" in page.text
    assert page.unbalanced == []


def test_the_numbers_of_an_export_are_those_of_its_record():
    text = read(NOW).text
    assert "8 % 0.5 300 MiB 1.46 MiB 45 24.7 s 410 \N{GREEK SMALL LETTER MU}s" in text
    assert "The export is proven." in text
    assert "No earlier batch of this name is known." in text


def test_each_number_has_its_change():
    text = read(NOW, baseline=compare_with(BEFORE)).text
    assert (
        "8 % x4 0.5 x0.333 300 MiB +100 % 1.46 MiB -50 % 45 +3 24.7 s +100 % 410 \N{GREEK SMALL LETTER MU}s -67 %"
        in text
    )
    assert "Changes are since batch 20251231-000000-ffff; what" in text


def test_what_comes_and_goes_by_itself_is_no_change():
    now = replace(BEFORE, export_peak_bytes=155 * 2**20, duration_s=14.0, latency_s=0.0015, max_noise_ratio=1.9)
    assert "passed as before" in read(now, baseline=compare_with(BEFORE)).text


@pytest.mark.parametrize(
    ("before", "words"), [(FAILED, "failed before"), (BEFORE, "passed as before"), (None, "first time")]
)
def test_what_became_of_an_export_before_is_told(before, words):
    exports = {} if before is None else {BEFORE.id: read_export(before)}
    assert words in read(BEFORE, baseline=Baseline(title="r", exports=exports)).text


def test_a_row_names_the_release_that_it_is_compared_with_where_that_is_not_the_last():
    exports = {one.id: read_export(one) for one in (BEFORE, UP_TO_DATE)}
    others = {BEFORE.id: "zoo-1", UP_TO_DATE.id: "zoo-2", CANCELLED.id: "zoo-1"}
    text = read(NOW, UP_TO_DATE, CANCELLED, baseline=Baseline("release zoo-3", exports, others)).text
    assert "Changes are since release zoo-3, or since the release that a row names" in text
    assert "passed since zoo-1 8 % x4" in text
    assert "up to date as before (zoo-2)" in text
    assert "cancelled \N{EN DASH}" in text


def test_models_and_variants_make_a_matrix_where_there_are_several_of_both():
    exports = [replace(PASSED, id=name, model=name.partition("-")[0]) for name in ("mlp", "mlp-opset18", "bert")]
    page = read(*exports, replace(FAILED, id="bert-opset18", model="bert"))
    assert "Models and variants as declared opset18 mlp passed passed bert passed failed Exports" in page.text
    assert "Models and variants" not in read(*exports[:2]).text
    assert "Models and variants" not in read(exports[0], exports[2]).text


def test_a_variant_that_was_not_asked_for_is_no_verdict():
    exports = [replace(PASSED, id=name, model=name.partition("-")[0]) for name in ("mlp", "mlp-opset18", "bert")]
    assert "bert passed \N{EN DASH} Exports" in read(*exports).text


def test_thousands_of_exports_are_cut_and_failed_ones_are_kept():
    passed = [replace(PASSED, id=f"m{place}-opset{place % 150}", model=f"m{place}") for place in range(6000)]
    page = read(*passed, replace(FAILED, id="the-last"))
    assert "the-last" in page.text
    assert "Left out here: 1,001 more exports, none of which failed more than these" in page.text
    assert "Left out here: 5,801 more models; the table has them." in page.text
    assert "Left out here: 51 more variants; the table has them." in page.text


@pytest.mark.parametrize(("num_variants", "are_tiles"), [(8, False), (9, True)])
def test_with_many_variants_a_verdict_is_a_tile_and_every_kind_of_tile_is_explained(num_variants, are_tiles):
    exports = [
        replace(PASSED if model == "a" else FAILED, id=f"{model}-opset{place}", model=model)
        for model in "ab"
        for place in range(num_variants)
    ]
    html = render_batch_page(make_batch(*exports))
    # And one of each kind in the key.
    assert html.count('class="tile passed"') == (num_variants + 1) * are_tiles
    assert html.count('class="tile failed"') == (num_variants + 1) * are_tiles
    assert '<span class="tile passed" title="passed"></span>passed</li>' in html or not are_tiles


def test_a_long_table_scrolls_under_its_headings():
    html = [
        render_batch_page(make_batch(*(replace(PASSED, id=f"m{place}") for place in range(count))))
        for count in (25, 26)
    ]
    assert ['<div class="scroll tall"' in page for page in html] == [False, True]


def test_a_failure_of_many_exports_is_told_once():
    one = replace(FAILED.failure, cause="output 0 is off", fingerprint="f1")
    same = replace(one, cause="output 1 is off")
    other = replace(one, cause="no such operator", fingerprint="f2")
    exports = [replace(FAILED, id=f"m{place}", failure=same if place else one) for place in range(20)]
    text = read(replace(FAILED, id="vit", failure=other), *exports).text
    assert text.count(" is off") == 1
    assert "Why 20 exports capture: crashed output 0 is off h m0, m1, m2," in text
    assert "m11 and 8 more vit capture: crashed no such operator h" in text
    # A record of a version without fingerprints.
    many = [replace(FAILED, id=f"m{place}", failure=replace(FAILED.failure, cause=f"c{place}")) for place in range(150)]
    assert "Left out here: 50 more causes" in read(*many).text


def test_kinds_of_failures_that_are_not_named_are_counted():
    kinds = list(FailureKind)[:7]
    exports = [replace(FAILED, failure=replace(FAILED.failure, kind=kind)) for kind in kinds for _ in range(2)]
    assert ", 4 of 2 other kinds." in read(*exports).text


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_user_or_a_model_says_is_text(text):
    failure = replace(FAILED.failure, cause=text, hint=text)
    exports = [
        replace(FAILED, id=text, model=text, failure=failure, precision=text),
        replace(PASSED, id=f"{text}-a", model=text),
        replace(PASSED, id="b", model="c"),
    ]
    batch = replace(
        make_batch(*exports), name=text, run_id=text, command=[text], git_commit=text, versions={text: text}
    )
    html = render_batch_page(replace(batch, started_at=text))
    page = read_page(html)
    assert page.unbalanced == []
    assert page.active == []
    assert page.tags.count("script") == 1
    html.encode()


def test_the_policy_allows_the_pages_own_script_by_its_hash():
    html = render_batch_page(make_batch(PASSED))
    policy = re.search('Content-Security-Policy" content="([^"]*)"', html)[1]
    assert "script-src &#39;sha256-" in policy
    assert "unsafe" not in policy


def test_the_page_lies_beside_the_summary(tmp_path: Path):
    run = RunDirectory(tmp_path / make_run(tmp_path).path)
    write_batch_page(run, run.read_summary(), None)
    assert "1 failed 1 passed" in read_page((run.path / "index.html").read_text()).text


def test_an_empty_column_is_sorted_last_by_its_key():
    html = render_batch_page(make_batch(PASSED, replace(FAILED, outcome=Outcome.failed)))
    assert 'data-key="0.00123"' in html
    assert 'data-key=""' in html
