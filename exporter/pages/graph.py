"""The graph of a saved model as one HTML file: Netron's own viewer, and the model without its weights.

The page asks nobody for anything, so that it can be looked at where MLflow shows artifacts: in a frame without network,
storage, or a place of its own. It is packed from the installed `netron` package, file by file and without a bundler:
modules become blobs in the browser (`graph.js`). Netron's own page would not do: it loads its modules by relative
addresses, asks a server in which country it is, and reports to an analytics service.
"""

import base64
import gzip
import hashlib
import html
import importlib.metadata
import importlib.util
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from exporter.directory import ExportDirectory
from exporter.files import write_text
from exporter.pages.graph_extent import sum_edge_rows
from exporter.pages.page import render_page, show_unseen
from exporter.subgraphs import graphs_of

__all__ = ["MAX_EDGE_ROWS", "MAX_NODES", "find_tensors", "read_viewer", "render_graph", "strip_weights", "write_graph"]

# Chromium takes five seconds for 4,000 on a slow machine, and nobody finds anything in more: there the page is words.
MAX_NODES = 3000
# Chromium takes 6 seconds for 60,000 on a slow machine, 23 for 127,000, and dies of 400,000.
MAX_EDGE_ROWS = 60_000
# Initializers and constants of no more elements keep their values: shapes, axes, scales.
_MAX_ELEMENTS = 32
# In an order in which each imports only those before it; other formats' readers are left out.
_MODULES = ("base", "text", "zip", "protobuf", "json", "dagre", "grapher", "onnx-proto", "onnx-schema", "onnx", "view")
_METADATA = "onnx-metadata.json"
# Its menu opens files and windows, which this page has not.
_STYLE = "#menu-button { display: none }"
_STORED = ("raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


def write_graph(directory: ExportDirectory, name: str) -> None:
    """Write the graph's page beside the model, or a page that says why there is no graph in it.

    Args:
        directory: Of an export that has its model.
        name: Of the export.

    Raises:
        OSError: The disk would not.
    """
    try:
        page = render_graph(onnx.load(directory.model, load_external_data=False), name)
    except (DecodeError, LookupError, ValueError) as error:
        page = _render_words(name, f"The graph cannot be shown: {error}")
    write_text(directory.graph, page)


def render_graph(model: onnx.ModelProto, name: str, url: str = "") -> str:
    """A page that shows the graph of a model.

    Args:
        model: Without its external data; where it goes into the page, its weights are taken out of it.
        name: What the page calls it; may hold anything.
        url: Where a server has the model, relative to the page, with files of external data beside it. Empty: the
            model is in the page.

    Raises:
        LookupError: The installed Netron is not one that can be packed.
    """
    operators = [node.op_type for graph in graphs_of(model) for node in graph.node]
    num_nodes = len(operators)
    if too_large := _say_too_large(model, num_nodes):
        return _render_words(name, too_large)
    viewer = read_viewer()
    parts = {
        "name": f"{name}.onnx",
        "title": name,
        "version": viewer.version,
        "viewer": viewer.packed,
        "assets": _pack_metadata(viewer.folder, set(operators)),
    }
    if url:
        parts["url"] = url
    else:
        strip_weights(model)
        parts["model"] = _pack(model.SerializeToString(deterministic=True))
    return _assemble(viewer, name, parts)


def _say_too_large(model: onnx.ModelProto, num_nodes: int) -> str:
    """Why a browser would not draw it in a reader's time; empty if it would."""
    if num_nodes > MAX_NODES:
        why = f"{num_nodes:,} nodes are too many to draw in a page, which takes up to {MAX_NODES:,}."
    elif (num_rows := sum_edge_rows(model.graph)) > MAX_EDGE_ROWS:
        why = (
            f"The edges between its {num_nodes:,} nodes are too long to draw in a page: together they reach over "
            f"{num_rows:,} rows of nodes, and a page takes up to {MAX_EDGE_ROWS:,}. It has values that are used far "
            "from where they are made."
        )
    else:
        return ""
    return f"{why} Netron on its own may draw it, given time: netron model.onnx."


def _render_words(name: str, text: str) -> str:
    return render_page("graph_words.html.j2", name=name, text=text)


def find_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All initializers and constants of a model, those of inner graphs and functions too."""
    for graph in graphs_of(model):
        if isinstance(graph, onnx.GraphProto):
            yield from graph.initializer
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            yield from (tensor for tensor in (attribute.t, *attribute.tensors) if tensor.data_type)


def strip_weights(model: onnx.ModelProto) -> None:
    """Take the values of all but small tensors out of a model, in place; names, dtypes and shapes stay."""
    for tensor in find_tensors(model):
        if math.prod(tensor.dims) > _MAX_ELEMENTS or tensor.data_location == onnx.TensorProto.EXTERNAL:
            for field in (*_STORED, "external_data", "data_location"):
                tensor.ClearField(field)


@dataclass(frozen=True)
class _Viewer:
    """What is the same in all pages."""

    folder: Path
    version: str
    # Netron's modules.
    packed: str
    style: str
    body: str
    script: str


@cache
def read_viewer() -> _Viewer:
    """Read Netron's files, once in a process.

    Raises:
        LookupError: They are not there, or are not those that can be packed.
    """
    found = importlib.util.find_spec("netron")
    if found is None or not found.submodule_search_locations:
        raise LookupError("Netron is not installed")
    folder = Path(found.submodule_search_locations[0])
    version = importlib.metadata.version("netron")
    try:
        modules = [(f"{name}.js", (folder / f"{name}.js").read_text(encoding="utf-8")) for name in _MODULES]
        page = (folder / "index.html").read_text(encoding="utf-8")
        style = (folder / "grapher.css").read_text(encoding="utf-8")
    except OSError as error:
        raise LookupError(f"Netron {version} has other files than those that are packed: {error}") from error
    body = re.search(r"<body[^>]*>(.*)</body>", page, re.DOTALL)
    if body is None:
        raise LookupError(f"Netron {version} has another page than the one that is packed")
    return _Viewer(
        folder=folder,
        version=version,
        packed=_pack(json.dumps({"modules": modules}).encode()),
        style="".join([style, *re.findall(r"<style>(.*?)</style>", page, re.DOTALL), _STYLE]),
        body=body[1],
        script=Path(__file__).with_name("graph.js").read_text(encoding="utf-8"),
    )


def _assemble(viewer: _Viewer, name: str, parts: Mapping[str, str]) -> str:
    digest = base64.b64encode(hashlib.sha256(viewer.script.encode()).digest()).decode()
    reach = "'self'" if "url" in parts else "'none'"
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}' blob:; style-src 'unsafe-inline'; img-src data: blob:; "
        f"connect-src {reach}; base-uri 'none'; form-action 'none'"
    )
    # Nothing but a "</script" ends a script element, and in JSON no "<" need stand.
    data = json.dumps(parts).replace("<", "\\u003c")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(str(show_unseen(name)))}</title>\n<style>{viewer.style}</style>\n</head>\n"
        f'<body class="welcome spinner">{viewer.body}\n<script type="application/json" id="parts">{data}</script>\n'
        f"<script>{viewer.script}</script>\n</body>\n</html>\n"
    )


def _pack(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, mtime=0)).decode()


@cache
def _read_metadata(folder: Path) -> tuple[dict[str, object], ...]:
    """What Netron knows of ONNX's operators: descriptions, and the names of their inputs, by version."""
    return tuple(json.loads((folder / _METADATA).read_text(encoding="utf-8")))


def _pack_metadata(folder: Path, operators: set[str]) -> str:
    entries = [entry for entry in _read_metadata(folder) if entry["name"] in operators]
    text = json.dumps([{key: value for key, value in entry.items() if key != "examples"} for entry in entries])
    return _pack(json.dumps({_METADATA: text}).encode())
