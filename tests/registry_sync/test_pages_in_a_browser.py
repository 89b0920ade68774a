"""Pages as a reviewer sees them: in a real browser, from disk and through a real MLflow server."""

import re
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import pytest
from browser import find_artifact, needs_browser, open_artifact, open_file, run_browser
from graph_data import make_model
from mlflow import MlflowClient
from mlflow_server import Server
from page_batch import RUN, make_page_run
from records import CANCELLED, FAILED, PASSED, UP_TO_DATE, make_batch
from release_data import make_judged_release
from report_data import HOSTILE, make_case, make_failed_result, make_hostile_result, make_output, make_result

from exporter.directory import ExportDirectory
from exporter.files import write_text
from exporter.pages.graph import render_graph, write_graph
from exporter.pages.report_page import render_report_page
from registry_sync.batch_page import render_batch_page
from registry_sync.mlflow_log import log_batch
from registry_sync.options import TrackingOptions
from registry_sync.release_page import describe_release, render_html
from registry_sync.tags import KEY_TAG

pytestmark = [needs_browser, pytest.mark.slow]
# Nothing is wider than the window: what has no room scrolls within a frame of its own.
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@dataclass(frozen=True)
class Logged:
    """A batch in MLflow."""

    uri: str
    experiment_id: str
    # Key to the id of the run.
    runs: dict[str, str]


@pytest.fixture(scope="module")
def logged(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    root = tmp_path_factory.mktemp("batch")
    run = make_page_run(root)
    with chdir(root):
        log_batch(run, run.read_summary(), TrackingOptions(uri=server.uri, experiment="pages"))
    client = MlflowClient(server.uri)
    experiment_id = client.get_experiment_by_name("pages").experiment_id
    runs = {one.data.tags[KEY_TAG]: one.info.run_id for one in client.search_runs([experiment_id])}
    return Logged(server.uri, experiment_id, runs)


@pytest.fixture(params=["light", "dark"])
def view(request: pytest.FixtureRequest) -> Iterator[tuple]:
    with run_browser(dark=request.param == "dark") as (context, seen):
        yield request.param, context, seen


@pytest.mark.parametrize(
    "planted",
    [
        "<img src='http://example.org/x'>",
        "<p style='color: red'>x</p>",
        "<script>document.title = fetch('http://example.org/y')</script>",
        "<link rel=stylesheet href='http://example.org/z'>",
    ],
)
def test_what_a_page_asks_for_would_be_seen(logged, planted):
    html = render_report_page(make_result()).replace("</footer>", f"</footer>{planted}")
    for name, page in (("policy", html), ("none", re.sub("<meta http-equiv[^>]*>", "", html))):
        MlflowClient(logged.uri).log_text(logged.runs[f"{RUN}/bert"], page, f"{name}.html")
    with run_browser() as (context, seen):
        open_artifact(context, logged.uri, logged.experiment_id, logged.runs[f"{RUN}/bert"], "policy.html")
        assert len(seen.of_our_pages()) == 1
        assert "Content Security Policy" in seen.of_our_pages()[0][1]
    if "http:" in planted:
        # What the policy is good for: without it they are asked for.
        with run_browser() as (context, seen):
            frame = open_artifact(context, logged.uri, logged.experiment_id, logged.runs[f"{RUN}/bert"], "none.html")
            frame.wait_for_timeout(500)
            assert [address for _, address in seen.outside if "example.org" in address]


def is_dark(frame) -> bool:
    colour = frame.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")) < 3 * 128


def test_mlflow_shows_the_page_of_an_export_as_it_is(logged, view):
    scheme, context, seen = view
    frame = open_artifact(context, logged.uri, logged.experiment_id, logged.runs[f"{RUN}/bert"], "report.html")
    text = " ".join(frame.inner_text("main").split())
    for words in (
        "bert passed",
        "25 % of its limit",
        "1.5 \N{MULTIPLICATION SIGN} limit 24 \N{MULTIPLICATION SIGN}",
        "42 99 captured",
        "50.0 MiB above",
        "1.23 ms",
    ):
        assert words in text, words
    # The style sheet is applied, in the reader's colours, and pictures are drawn.
    assert is_dark(frame) == (scheme == "dark")
    assert frame.evaluate("getComputedStyle(document.querySelector('.facts')).display") == "grid"
    box = frame.locator("table.parity circle.mark").first.bounding_box()
    assert box["width"] == pytest.approx(9, abs=1)
    assert seen.of_our_pages() == []


def test_the_picture_shows_errors_where_they_are(logged, view):
    _, context, _ = view
    frame = open_artifact(context, logged.uri, logged.experiment_id, logged.runs[f"{RUN}/vit"], "report.html")

    def middle(selector: str) -> float:
        box = frame.locator(selector).first.bounding_box()
        return box["x"] + box["width"] / 2

    limit = middle("table.parity tbody line.limit")
    # 12 times the limit, and 5 % of it.
    assert middle("table.parity tbody tr:nth-child(1) circle.mark.over") > limit
    assert middle("table.parity tbody tr:nth-child(2) circle.mark:not(.over)") < limit


def test_mlflow_shows_why_an_export_failed_and_its_words_stay_words(logged, view):
    _, context, seen = view
    frame = open_artifact(context, logged.uri, logged.experiment_id, logged.runs[f"{RUN}/clip"], "report.html")
    text = " ".join(frame.inner_text("main").split())
    assert "clip failed" in text
    assert "<img src=http://example.org/x>\\u202e" in text
    assert frame.locator("img").count() == 0
    assert seen.of_our_pages() == []


def test_mlflow_shows_the_page_of_the_batch_and_it_can_be_sorted(logged, view):
    scheme, context, seen = view
    frame = open_artifact(context, logged.uri, logged.experiment_id, logged.runs[RUN], "index.html")
    text = " ".join(frame.inner_text("main").split())
    for words in ("zoo 2 failed 2 passed", "2 of 4 exports are not proven: 2 parity_failed.", "as declared opset21"):
        assert words in text, words
    names = "[...document.querySelectorAll('table.sortable tbody th > bdi')].map(one => one.textContent)"
    rows = frame.evaluate("[...document.querySelectorAll('table.sortable tbody tr')].map(one => one.innerText)")
    slower = next(" ".join(row.split()) for row in rows if row.startswith("bert-opset21"))
    assert "25 % 1.5 50.0 MiB 4 B 42 +2 5.25 s 2.46 ms +100 %" in slower
    assert is_dark(frame) == (scheme == "dark")
    frame.click("table.sortable th:last-child button")
    frame.click("table.sortable th:last-child button")
    assert frame.evaluate(names)[0] == "bert-opset21"
    frame.click("table.sortable th:first-child button")
    assert frame.evaluate(names) == sorted(frame.evaluate(names))
    assert frame.get_attribute("table.sortable th:first-child", "aria-sort") == "ascending"
    assert seen.of_our_pages() == []


def test_the_note_of_a_batch_leads_to_its_page(logged):
    with run_browser() as (context, _):
        page = context.new_page()
        page.goto(f"{logged.uri}/#/experiments/{logged.experiment_id}/runs/{logged.runs[RUN]}")
        with page.expect_popup() as found:
            page.get_by_role("link", name="as a page").click(timeout=60_000)
        assert "2 of 4 exports are not proven" in find_artifact(found.value).inner_text("main")


@pytest.mark.parametrize("width", [700, 1280])
def test_a_batch_of_thousands_is_sorted_and_scrolled_under_its_headings(tmp_path: Path, width: int):
    exports = [
        replace(FAILED if (model + variant) % 17 == 0 else PASSED, id=f"m{model}-v{variant}", model=f"m{model}")
        for model in range(50)
        for variant in range(60)
    ]
    page_path = tmp_path / "index.html"
    write_text(page_path, render_batch_page(make_batch(*exports)))
    with run_browser(width=width) as (context, seen):
        page = open_file(context, page_path)
        assert page.evaluate(OVERFLOW) == 0
        assert page.locator("table.sortable tbody tr").count() == 3000
        page.click("table.sortable th:first-child button")
        assert page.locator("table.sortable tbody th bdi").first.inner_text() == "m0-v0"
        for table in ("table.matrix", "table.sortable"):
            page.locator(table).evaluate("one => one.parentElement.scrollTo(300, 600)")
            corner = page.locator(f"{table} thead th").first.bounding_box()
            frame = page.locator(".scroll", has=page.locator(table)).bounding_box()
            assert (corner["x"], corner["y"]) == pytest.approx((frame["x"], frame["y"]), abs=1)
            assert page.locator(table).bounding_box()["y"] < frame["y"] - 100
            assert frame["height"] <= 850
        assert seen.of_our_pages() == []


def test_the_scale_of_a_picture_is_whole_beside_names_of_several_lines(tmp_path: Path):
    outputs = [make_output(f"decoder.layers.{place}.a_rather_long_name_of_an_output") for place in range(3)]
    write_text(tmp_path / "report.html", render_report_page(make_result(cases=[make_case("example", *outputs)])))
    with run_browser(width=700) as (context, _):
        page = open_file(context, tmp_path / "report.html")
        lines = [one.bounding_box() for one in page.locator("table.parity tbody line.limit").all()]
        row = page.locator("table.parity tbody tr").first.bounding_box()
    assert row["height"] > 40
    ends = [(line["y"], line["y"] + line["height"]) for line in lines]
    assert [ends[0][1], ends[1][1]] == pytest.approx([ends[1][0], ends[2][0]], abs=2)


@pytest.mark.parametrize("width", [375, 700, 1280])
def test_no_page_is_wider_than_its_window(tmp_path: Path, width: int):
    many = [make_output(f"a_rather_long_name_of_an_output_{place}", passed=place % 2 == 0) for place in range(50)]
    results = [make_result(), make_failed_result(cases=[make_case("example", *many)])]
    results += [make_hostile_result(text) for text in HOSTILE]
    pages = [render_report_page(result) for result in results]
    pages.append(render_html(describe_release(*make_judged_release())))
    with run_browser(width=width) as (context, seen):
        for place, html in enumerate(pages):
            path = tmp_path / f"{place}.html"
            write_text(path, html)
            page = open_file(context, path)
            assert page.evaluate(OVERFLOW) == 0, place
            assert page.evaluate("window.hit") is None
            page.close()
        assert seen.of_our_pages() == []


def test_a_page_is_whole_without_scripts(tmp_path: Path):
    run = make_page_run(tmp_path)
    record = type(run)(tmp_path / run.path).read_summary()
    write_text(tmp_path / "index.html", render_batch_page(record))
    with run_browser(script=False) as (context, _):
        page = open_file(context, tmp_path / "index.html")
        assert page.locator("table.sortable tbody tr").count() == 4
        assert page.locator("table.sortable button").count() == 0


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_on_what_is_behind_it(tmp_path: Path, dark: bool):
    """At least 4.5 to 1, as the Web Content Accessibility Guidelines (1.4.3) ask of small text."""
    write_text(tmp_path / "report.html", render_report_page(make_failed_result()))
    write_text(tmp_path / "changes.html", render_html(describe_release(*make_judged_release())))
    write_text(tmp_path / "index.html", render_batch_page(make_batch(PASSED, FAILED, CANCELLED, UP_TO_DATE)))
    with run_browser(dark=dark) as (context, seen):
        found = []
        for name in ("report", "changes", "index"):
            page = open_file(context, tmp_path / f"{name}.html")
            assert is_dark(page) == dark
            found += page.evaluate(CONTRASTS)
    assert seen.of_our_pages() == []
    assert len(found) > 150
    assert [(round(ratio, 2), text) for ratio, text in found if ratio < 4.5] == []


CONTRASTS = """
() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const node = walker.currentNode.parentElement;
    if (!text) continue;
    const style = getComputedStyle(node);
    const [one, other] = [light(parse(node.closest("svg") ? style.fill : style.color)), light(behind(node))];
    found.push([(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), text.slice(0, 40)]);
  }
  return found;
}
"""


def test_mlflow_shows_the_graph_in_its_viewer(logged, view, tmp_path):
    scheme, context, seen = view
    directory = ExportDirectory(tmp_path)
    onnx.save(make_model(), directory.model)
    write_graph(directory, "bert")
    MlflowClient(logged.uri).log_artifact(logged.runs[f"{RUN}/bert"], directory.graph)
    frame = open_artifact(context, logged.uri, logged.experiment_id, logged.runs[f"{RUN}/bert"], "graph.html")
    frame.wait_for_selector("body.default")
    names = frame.evaluate("[...document.querySelectorAll('.node-item-type')].map(one => one.textContent)")
    assert {"Relu", "If"} <= set(names)
    # A node's properties come from the operators' descriptions, which are in the page too.
    frame.locator(".node-item-type", has_text="Relu").first.click()
    assert "Relu" in frame.inner_text("#sidebar-content")
    assert is_dark(frame) == (scheme == "dark")
    assert seen.of_our_pages() == []


@pytest.mark.parametrize(("ir_version", "producer"), [(10, "pytorch"), (10, ""), (14, ""), (14, "a tool (1.0)")])
def test_the_viewer_knows_a_model_of_any_version_and_maker(tmp_path: Path, ir_version: int, producer: str):
    model = make_model(300, producer)
    model.ir_version = ir_version
    write_text(tmp_path / "graph.html", render_graph(model, "net"))
    with run_browser() as (context, seen):
        page = open_file(context, tmp_path / "graph.html")
        page.wait_for_selector("body.default")
        assert page.locator(".node-item-type", has_text="Relu").count() == 299
        assert seen.of_our_pages() == []


def test_a_name_with_markup_in_it_is_the_title_of_its_graph(tmp_path):
    write_text(tmp_path / "graph.html", render_graph(make_model(), "".join(HOSTILE)))
    with run_browser() as (context, seen):
        page = open_file(context, tmp_path / "graph.html")
        page.wait_for_selector("svg .node", state="attached")
        assert page.title().startswith(HOSTILE[0])
        assert seen.of_our_pages() == []
