"""What a reviewer sees of a release, in Markdown and in HTML."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest
from release_data import make_manifest, make_model

from exporter.errors import FailureKind
from exporter.failures import make_failure
from exporter.result import Step
from registry_sync.release_manifest import Change, Manifest, Verdict
from registry_sync.release_page import describe_release, render_html, render_markdown

NASTY = "no ONNX function for aten.<script>alert('&')</script> | *x*\nand `y`"


def make_release() -> tuple[Manifest, list[Manifest]]:
    failure = make_failure(Step.capture, FailureKind.unsupported_op, NASTY)
    refused = make_model(
        "vit",
        verdict=Verdict.over_budget,
        baseline="1",
        changes=[
            Change(what="size", before="1.0 MiB", after="2.0 MiB", exceeded="+100.0 %, allowed are 5 %"),
            Change(what="latency", before="1 ms", after="2 ms"),
        ],
    )
    failed = make_model("bert", verdict=Verdict.failed, failure=failure, files=[], failure_history="new")
    known = dataclasses.replace(
        failed,
        id="gru",
        verdict=Verdict.known_failure,
        failure_history="known",
        issue="https://example.org/1",
        expires="2026-12-31",
    )
    fixed = make_model("gpt2", failure_history="fixed")
    new = make_manifest(
        version="2",
        previous="1",
        passed=False,
        models=[make_model(), refused, failed, known, fixed],
        removed=["clip"],
        command=["+release=zoo", "x=<b>"],
    )
    return new, [make_manifest(models=[make_model(), make_model("vit"), make_model("clip"), known, failed])]


class Reader(HTMLParser):
    """Every tag, attribute and text; complains of what is not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend(attrs)
        if tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read_html(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader._open == []
    return reader


def test_the_page_says_why_first() -> None:
    text = render_markdown(describe_release(*make_release()))
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles[:5] == ["Over budget", "Failed", "Changes within the budget, or accepted", "Come and gone", "Models"]
    assert text.startswith("# Release zoo-2\n\n**not passed: 2 accepted, 1 over budget, 1 failed, 1 known failure**")
    assert "| vit | 1 | size | 1.0 MiB | 2.0 MiB | +100.0 %, allowed are 5 % |" in text
    assert "| vit | 1 | latency | 1 ms | 2 ms |" in text
    assert "| clip | no longer in the release |" in text
    assert "| gpt2 | failed in the release before, passes now |" in text
    assert "https://example.org/1 until 2026-12-31" in text


def test_every_row_of_a_table_has_its_cells_whatever_a_cause_says() -> None:
    text = render_markdown(describe_release(*make_release()))
    widths = [
        {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines() if line.startswith("|")}
        for table in text.split("## ")
    ]
    assert all(len(width) <= 1 for width in widths)
    assert "<script" not in text
    assert "&lt;script>alert('&amp;')" in text


def test_the_html_is_one_file_that_loads_and_runs_nothing() -> None:
    text = render_html(describe_release(*make_release()))
    reader = read_html(text)
    policy = next(value for name, value in reader.attributes if name == "content" and value and "default-src" in value)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert not {"script", "link", "img", "iframe", "form", "a", "b"} & set(reader.tags)
    assert not {"src", "href", "onclick"} & {name for name, _ in reader.attributes}
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    assert " ".join(NASTY.split()) in reader.texts
    assert "+release=zoo x=<b>" in reader.texts


def test_both_pages_say_the_same() -> None:
    page = describe_release(*make_release())
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
    read_html(render_html(page))
    assert render_markdown(page).endswith("|\n")
