"""`python -m exporter.pages.view EXPORT`: the graph of an export in Netron's viewer, with its weights, on this machine.

The same page as an export's graph.html, but the model comes from a small server, whole: a tensor's values can be looked
at. The server listens on the loopback address alone, has the export's model files and nothing else, and the page asks
nobody else for anything; Netron's own server would do with a page that asks other sites too.
"""

import argparse
import os
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copyfileobj
from typing import TYPE_CHECKING

from exporter.directory import ExportDirectory
from exporter.errors import ConfigError, ExitCode, ModelpressError, StorageError

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["GraphServer", "find_model", "main"]

_HOST = "127.0.0.1"
_PORT = 8080


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    """Serve one graph until Ctrl-C; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m exporter.pages.view", description="look at the graph of an export")
    parser.add_argument("export", metavar="EXPORT", help="an id under exports/, a directory, or an .onnx file")
    parser.add_argument("--port", type=int, help=f"to listen on; without: {_PORT}, or another if that is taken")
    parser.add_argument("--open", action="store_true", help="open the browser as well")
    options = parser.parse_args(arguments)
    try:
        with suppress(KeyboardInterrupt), GraphServer(find_model(options.export), options.port) as server:
            sys.stdout.write(f"{server.model} at {server.url} (Ctrl-C ends it)\n")
            sys.stdout.flush()
            if options.open:
                webbrowser.open(server.url)
            server.serve_forever()
    except ModelpressError as error:
        sys.stderr.write(f"modelpress: {error}\n")
        return error.exit_code
    return ExitCode.OK


def find_model(name: str) -> Path:
    """The .onnx file that is meant.

    Args:
        name: Of a file, of a directory with an export, or of an export in exports/.

    Raises:
        ConfigError: There is none.
    """
    for path in (Path(name), ExportDirectory(Path(name)).model, ExportDirectory(Path("exports", name)).model):
        if path.is_file():
            return path
    known = sorted(path.parent.name for path in Path("exports").glob("*/model.onnx"))
    there = f"; there are {', '.join(known[:9])}" if known else ""
    raise ConfigError(f"{name}: no such file, and no export with a model in exports/{there}")


class GraphServer(ThreadingHTTPServer):
    """Serves the page of one model, the model, and the files beside it that hold its weights.

    Args:
        model: The .onnx file.
        port: To listen on; None: the usual one, or another if that is taken.

    Raises:
        ConfigError: It is no ONNX file, or too large to draw.
        StorageError: The port is taken.
    """

    daemon_threads = True

    def __init__(self, model: Path, port: int | None = None) -> None:
        self.model = model
        loaded = _load(model)
        self.files = _find_files(model, loaded)
        self.page = _render(model, loaded)
        try:
            super().__init__((_HOST, _PORT if port is None else port), _Handler)
        except OSError as error:
            if port is not None:
                raise StorageError(f"--port: {port}: {error.strerror}; choose another, or leave it out") from error
            super().__init__((_HOST, 0), _Handler)
        except OverflowError as error:
            raise ConfigError(f"--port: {port} is not within 0 to 65535") from error

    @property
    def url(self) -> str:
        return f"http://{_HOST}:{self.server_port}/"


def _load(model: Path) -> "ModelProto":
    # Here, as onnx takes half a second to import.
    import onnx

    try:
        return onnx.load(model, load_external_data=False)
    except Exception as error:
        raise ConfigError(f"{model}: is no ONNX file: {error}") from error


def _render(model: Path, loaded: "ModelProto") -> bytes:
    from exporter.pages.graph import render_graph

    try:
        return render_graph(loaded, model.parent.name, url=model.name).encode()
    except (LookupError, ValueError) as error:
        raise ConfigError(f"{model}: {error}") from error


def _find_files(model: Path, loaded: "ModelProto") -> Mapping[str, Path]:
    """What the page may ask for, by its address: the model, and files of weights that lie beside it."""
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    from exporter.pages.graph import find_tensors

    tensors = find_tensors(loaded)
    names = {str(ExternalDataInfo(tensor).location) for tensor in tensors if uses_external_data(tensor)}
    # A model may name any path; only what lies beside it is its own.
    return {f"/{name}": model.parent / name for name in (model.name, *names) if Path(name).name == name}


class _Handler(BaseHTTPRequestHandler):
    server: GraphServer

    def do_GET(self) -> None:
        # Another site may have its own name point to this machine, and read what we serve.
        if self.headers.get("Host") not in {f"{name}:{self.server.server_port}" for name in (_HOST, "localhost")}:
            self.send_error(HTTPStatus.FORBIDDEN)
        elif self.path == "/":
            self._send_head("text/html; charset=utf-8", len(self.server.page))
            self.wfile.write(self.server.page)
        elif (path := self.server.files.get(self.path)) is not None and path.is_file():
            with path.open("rb") as file:
                self._send_head("application/octet-stream", os.fstat(file.fileno()).st_size)
                copyfileobj(file, self.wfile)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _send_head(self, kind: str, size_bytes: int) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size_bytes))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name in the base class)
        """Say nothing of each request."""


if __name__ == "__main__":
    sys.exit(main())
