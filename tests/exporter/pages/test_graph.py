import base64
import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import onnx
import pytest
from graph_data import make_model
from onnx import TensorProto, numpy_helper

from exporter.directory import ExportDirectory
from exporter.pages import graph
from exporter.pages.graph import render_graph, strip_weights, write_graph

HOSTILE = "</script><script>alert(1)</script>@PARTS@\u202e"


class Page(HTMLParser):
    """What a browser makes of a page: its scripts, its title, and where it would go for more."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements:
            self.texts.setdefault(self.elements[-1][0], []).append(data)

    @property
    def parts(self) -> dict[str, str]:
        return json.loads(self.texts["script"][0])


def unpack(text: str) -> bytes:
    return gzip.decompress(base64.b64decode(text))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    onnx.save(make_model(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_weights_are_taken_out_everywhere_and_what_shapes_hang_on_stays() -> None:
    model = make_model()
    strip_weights(model)
    large, small, outside = model.graph.initializer
    assert (large.raw_data, list(large.dims), large.data_type) == (b"", [64, 64], TensorProto.FLOAT)
    assert numpy_helper.to_array(small).tolist() == [3]
    assert not outside.external_data
    assert outside.data_location == TensorProto.DEFAULT
    assert model.graph.node[0].attribute[0].t.raw_data == b""
    branch = model.graph.node[-1].attribute[0].g
    assert branch.initializer[0].raw_data == branch.node[0].attribute[0].t.raw_data == b""


def test_a_page_holds_the_viewer_and_the_model_and_points_nowhere(path: Path) -> None:
    text = render_graph(onnx.load(path, load_external_data=False), "net")
    page = Page(text)
    model = onnx.load_from_string(unpack(page.parts["model"]))
    assert [node.op_type for node in model.graph.node] == ["Constant", "Relu", "If"]
    modules = dict(json.loads(unpack(page.parts["viewer"]))["modules"])
    assert list(modules)[-1] == "view.js"
    (assets,) = json.loads(unpack(page.parts["assets"])).values()
    assert {entry["name"] for entry in json.loads(assets)} == {"Constant", "Relu", "If"}
    assert not [one for one in page.elements if one[1].get("src")]
    assert [one for one in page.elements if one[0] == "link"] == []
    assert len(text) < 400_000
    assert render_graph(onnx.load(path, load_external_data=False), "net") == text


def test_a_module_comes_after_all_that_it_imports_at_once(path: Path) -> None:
    modules = json.loads(unpack(Page(render_graph(onnx.load(path, load_external_data=False), "net")).parts["viewer"]))[
        "modules"
    ]
    known: set[str] = set()
    for name, source in modules:
        at_once = set(re.findall(r"^import .* from '\./([\w-]+\.js)'", source, re.MULTILINE))
        assert at_once <= known, name
        known.add(name)


def test_a_name_stays_a_name(path: Path) -> None:
    page = Page(render_graph(onnx.load(path, load_external_data=False), HOSTILE))
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert page.parts["title"] == HOSTILE
    assert page.texts["title"][0] == HOSTILE.replace("\u202e", "\\u202e")


def test_a_served_page_gets_the_model_from_its_server_alone(path: Path) -> None:
    parts = [Page(render_graph(onnx.load(path, load_external_data=False), "net", url)) for url in ("", "model.onnx")]
    policies = [page.elements[3][1]["content"] or "" for page in parts]
    assert "connect-src 'none'" in policies[0]
    assert "connect-src 'self'" in policies[1]
    assert "model" not in parts[1].parts
    assert parts[1].parts["url"] == "model.onnx"


def test_a_graph_too_large_to_draw_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "MAX_NODES", 9)
    onnx.save(make_model(8), tmp_path / "model.onnx")
    text = render_graph(onnx.load(tmp_path / "model.onnx", load_external_data=False), HOSTILE)
    # Those of the branch count too.
    assert "10 nodes are too many to draw in a page, which takes up to 9." in text
    assert "<script" not in text


def test_a_file_that_is_no_model_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\xff\xff\xff")
    write_graph(ExportDirectory(tmp_path), "net")
    assert "The graph cannot be shown" in (tmp_path / "graph.html").read_text()
