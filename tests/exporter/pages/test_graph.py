import base64
import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_data import make_model
from onnx import TensorProto, helper, numpy_helper

from exporter.directory import ExportDirectory
from exporter.pages import graph
from exporter.pages.graph import render_graph, strip_weights, write_graph
from exporter.pages.graph_extent import sum_edge_rows

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


def make_chain(num_nodes: int, *shared: str) -> onnx.ModelProto:
    """Each node takes what the last one made, and values that the first nodes made."""
    nodes = [helper.make_node("Relu", ["x"], [name]) for name in ("y0", *shared)]
    nodes += [helper.make_node("Sum", [f"y{place}", *shared], [f"y{place + 1}"]) for place in range(num_nodes)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", nodes[-1].output[0])]
    return helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:]))


@pytest.mark.parametrize(
    ("shared", "num_rows"),
    [
        # From the input, then from each node to the next.
        ([], 1 + 4),
        # The first of them as the chain; each further one reaches over one row more than the one before it.
        (["mask"], 1 + 4 + (1 + 1 + 2 + 3 + 4)),
        (["mask", "angle"], 1 + 4 + 2 * (1 + 1 + 2 + 3 + 4)),
    ],
)
def test_the_rows_that_edges_reach_over_are_counted(shared: list[str], num_rows: int) -> None:
    assert sum_edge_rows(make_chain(4, *shared).graph) == num_rows


def test_a_source_is_drawn_beside_its_one_target_however_far_down_that_is() -> None:
    model = make_chain(50)
    model.graph.node.insert(0, helper.make_node("RandomNormal", [], ["noise"], shape=[2]))
    model.graph.node[-1].input.append("noise")
    assert sum_edge_rows(model.graph) == 1 + 50 + 1


def test_initializers_constants_and_missing_inputs_have_no_edges() -> None:
    model = make_chain(2)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value_float=1.0))
    model.graph.initializer.append(numpy_helper.from_array(np.ones(2, "float32"), "w"))
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2]))
    model.graph.node[-1].input.extend(["c", "w", ""])
    assert sum_edge_rows(model.graph) == 3
    assert sum_edge_rows(onnx.GraphProto()) == 0


def test_a_graph_whose_edges_are_too_long_to_draw_is_told_as_such() -> None:
    text = render_graph(make_chain(400, "mask"), "net")
    # Half the square of the nodes.
    assert "between its 402 nodes are too long to draw in a page: together they reach over 80," in text
    assert "<script" not in text
    assert "<script" in render_graph(make_chain(340, "mask"), "net")


def test_a_file_that_is_no_model_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\xff\xff\xff")
    write_graph(ExportDirectory(tmp_path), "net")
    assert "The graph cannot be shown" in (tmp_path / "graph.html").read_text()
