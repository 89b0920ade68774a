"""The server of a graph: what it hands out, to whom, and what it says to a mistake."""

import http.client
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from browser import needs_browser, run_browser
from graph_data import make_model

from exporter.errors import ConfigError, ExitCode, StorageError
from exporter.pages.view import GraphServer, find_model, main


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "exports/net"
    folder.mkdir(parents=True)
    onnx.save(make_model(), folder / "model.onnx")
    (folder / "model.onnx.data").write_bytes(b"\0" * 8)
    (folder / "result.json").write_text("{}")
    return folder / "model.onnx"


@pytest.fixture
def server(model: Path) -> Iterator[GraphServer]:
    with GraphServer(model, 0) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def get(server: GraphServer, path: str, host: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{server.server_port}"})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_an_export_is_found_by_its_id_its_directory_and_its_file(model: Path) -> None:
    assert find_model("net").resolve() == find_model("exports/net").resolve() == find_model(str(model)) == model
    with pytest.raises(ConfigError, match="nett: no such file, and no export with a model in exports/; there are net"):
        find_model("nett")


def test_the_model_and_its_weights_are_served_and_nothing_else(server: GraphServer, model: Path) -> None:
    assert get(server, "/")[0] == 200
    assert get(server, "/model.onnx") == (200, model.read_bytes())
    assert get(server, "/model.onnx.data") == (200, b"\0" * 8)
    for path in ("/result.json", "/../net/result.json", "/etc/passwd", "//etc/passwd", "/%2e%2e/net/result.json"):
        assert get(server, path)[0] == 404, path


def test_a_model_cannot_have_other_files_served(model: Path) -> None:
    made = make_model()
    made.graph.initializer[2].external_data[0].value = "../../secret"
    onnx.save_model(made, model)
    with GraphServer(model, 0) as server:
        assert list(server.files) == ["/model.onnx"]


def test_only_this_machine_may_ask(server: GraphServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert get(server, "/", host="example.org")[0] == 403
    assert get(server, "/model.onnx", host=f"evil.example:{server.server_port}")[0] == 403
    assert get(server, "/", host=f"localhost:{server.server_port}")[0] == 200


def test_a_port_that_is_taken_is_told_or_another_one_is_taken(server: GraphServer, model: Path) -> None:
    with pytest.raises(StorageError, match=f"--port: {server.server_port}: Address already in use"):
        GraphServer(model, server.server_port)
    with GraphServer(model) as one, GraphServer(model) as other:
        assert one.server_port != other.server_port


def test_a_mistake_is_a_line(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nothing"]) is ExitCode.CONFIG
    model.write_bytes(b"\xff\xff")
    assert main(["net"]) is ExitCode.CONFIG
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "is no ONNX file" in lines[1]


def test_ctrl_c_ends_it_well(model: Path) -> None:
    command = [sys.executable, "-m", "exporter.pages.view", "net", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert "exports/net/model.onnx at http://127.0.0.1:" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


@needs_browser
@pytest.mark.slow
def test_the_page_draws_the_model_that_the_server_has(server: GraphServer) -> None:
    with run_browser() as (context, seen):
        page = context.new_page()
        page.goto(server.url)
        page.wait_for_selector("svg .node", state="attached")
        names = page.evaluate("[...document.querySelectorAll('.node-item-type')].map(one => one.textContent)")
        assert "Relu" in names
        assert seen.outside == []
        assert [one for one in seen.complaints if "favicon" not in one[0]] == []
