"""What a reviewer sees of a release, in Markdown and in HTML."""

import dataclasses
import re

import pytest
from page_text import read_page
from release_data import NASTY, make_judged_release, make_manifest, make_model
from report_data import HOSTILE

from registry_sync.release_manifest import Change
from registry_sync.release_page import describe_release, render_html, render_markdown


def test_the_page_says_why_first() -> None:
    text = render_markdown(describe_release(*make_judged_release()))
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles[:5] == ["Over budget", "Failed", "Changes within the budget, or accepted", "Come and gone", "Models"]
    assert text.startswith("# Release zoo-2\n\n**not passed: 2 accepted, 1 over budget, 1 failed, 1 known failure**")
    assert "| vit | 1 | size | 1.0 MiB | 2.0 MiB | +100.0 %, allowed are 5 % |" in text
    assert "| vit | 1 | latency | 1 ms | 2 ms |" in text
    assert "| clip | no longer in the release |" in text
    assert "| gpt2 | failed in the release before, passes now |" in text
    assert "https://example.org/1 until 2026-12-31" in text


def test_every_row_of_a_table_has_its_cells_whatever_a_cause_says() -> None:
    text = render_markdown(describe_release(*make_judged_release()))
    widths = [
        {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines() if line.startswith("|")}
        for table in text.split("## ")
    ]
    assert all(len(width) <= 1 for width in widths)
    assert "<script" not in text
    assert "&lt;script>alert('&amp;')" in text


def test_the_html_is_one_file_that_loads_and_runs_nothing() -> None:
    text = render_html(describe_release(*make_judged_release()))
    page = read_page(text)
    policy = re.search('Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src &#39;none&#39;; style-src &#39;sha256-")
    assert "unsafe" not in policy[1]
    assert not {"script", "link", "img", "iframe", "form", "a", "b"} & set(page.tags)
    assert page.active == []
    assert page.unbalanced == []
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    assert " ".join(NASTY.split()) in page.text
    assert "+release=zoo x=<b>" in page.text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_a_user_or_a_model_says_is_text(hostile: str) -> None:
    new, earlier = make_judged_release()
    models = [
        dataclasses.replace(
            model,
            id=f"{model.id}{hostile}",
            precision=hostile,
            issue=hostile,
            failure=model.failure and dataclasses.replace(model.failure, cause=hostile, hint=hostile),
            changes=[Change(what=hostile, before=hostile, after=hostile, exceeded=hostile)],
        )
        for model in new.models
    ]
    new = dataclasses.replace(new, models=models, command=[hostile], versions={hostile: hostile}, removed=[hostile])
    text = render_html(describe_release(new, earlier))
    page = read_page(text)
    assert page.unbalanced == []
    assert page.active == []
    assert "script" not in page.tags
    text.encode()


def test_verdicts_are_badges_and_thousands_of_models_are_cut() -> None:
    new, earlier = make_judged_release()
    text = render_html(describe_release(new, earlier))
    for verdict, badge in (("accepted", "passed"), ("over budget", "failed"), ("known failure", "unproven")):
        assert f'<span class="badge {badge}">{verdict}</span>' in text
    assert "Release zoo-2 not passed 2 accepted, 1 over budget, 1 failed, 1 known failure." in read_page(text).text
    many = make_manifest(models=[make_model(f"m{place}") for place in range(5003)])
    text = read_page(render_html(describe_release(many, []))).text
    assert text.count("Left out here: 3 more rows; manifest.json has them all.") == 2


def test_both_pages_say_the_same() -> None:
    page = describe_release(*make_judged_release())
    html, markdown = render_html(page), render_markdown(page)
    for table in page.tables:
        assert f"<h2>{table.title}</h2>" in html
        assert f"## {table.title}" in markdown
        assert len(table.rows) > 0


def test_a_first_release_has_no_empty_tables() -> None:
    page = describe_release(make_manifest(), [])
    assert [table.title for table in page.tables] == ["Models", "Versions", "Files"]
    assert page.passed


@pytest.mark.parametrize("count", [0, 1])
def test_a_release_without_any_failure_or_model_has_a_page(count: int) -> None:
    page = describe_release(make_manifest(models=[make_model()] * count), [])
    assert read_page(render_html(page)).unbalanced == []
    assert render_markdown(page).endswith("|\n")
