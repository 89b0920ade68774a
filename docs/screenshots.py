"""Makes the pictures in docs/images/: the pages for a reviewer, of a real batch, in a real browser.

`python docs/screenshots.py` releases a few models twice in a temporary folder, two of them with a fault on purpose
(docs/gallery/), into an MLflow server of its own, opens the pages with chromium and writes a PNG of each. It takes a
minute or two and needs the `zoo` and `dev` extras, and chromium with fonts that have the pages' signs; on Debian

    apt-get install chromium fonts-dejavu fonts-noto-core

Numbers in the pictures are those of the machine that it runs on. Another folder than docs/images/: `--out DIR`.
"""

import argparse
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mlflow import MlflowClient
from PIL import Image
from playwright.sync_api import BrowserContext, Page, Route, sync_playwright

_ROOT = Path(__file__).resolve().parent.parent
_WIDTH = 1200
# Of the window.
_HEIGHT = 800
# Above the heading that a picture begins or ends with.
_MARGIN = 16
# So that whoever clones the repository does not pay for the pictures.
_MAX_BYTES = 200_000
_EXPERIMENT = "gallery"
_START_TIMEOUT_S = 120.0
_REST_MS = 2000
# The exit code of a batch that completed with failed exports, as the planted faults mean it to.
_SOME_FAILED = 1


@dataclass(frozen=True)
class Section:
    """What of a page on disk goes into a picture, by the headings that it lies between."""

    page: Path
    # Empty: from the page's top.
    start: str = ""
    end: str = ""


@dataclass(frozen=True)
class Gallery:
    """What there is to look at."""

    folder: Path
    uri: str
    experiment_id: str

    def find_run(self, key: str) -> str:
        """The newest MLflow run whose name is, or ends with, the key."""
        found = MlflowClient(self.uri).search_runs([self.experiment_id], order_by=["start_time DESC"])
        return next(str(run.info.run_id) for run in found if (run.info.run_name or "").endswith(key))

    def find_newest(self, pattern: str) -> Path:
        """The file under the folder that was written last."""
        return max(self.folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns)

    def show(self, context: BrowserContext, run_id: str, name: str, ready: str) -> Page:
        """A page of its own on MLflow's artifact view.

        Args:
            context: The browser's.
            run_id: Of MLflow.
            name: The artifact's.
            ready: A selector for what is there, within the artifact, once all of it is drawn.
        """
        page = context.new_page()
        experiment = f"{self.uri}/#/experiments/{self.experiment_id}"
        page.goto(f"{experiment}/runs?workflowType=machine_learning")
        # MLflow's assistant comes with the first visit, and takes a quarter of the window.
        page.get_by_role("button", name="Close", exact=True).click()
        page.goto(f"{experiment}/runs/{run_id}/artifacts/{name}")
        page.frame_locator("iframe[src^='blob:']").locator(ready).first.wait_for(state="attached", timeout=60_000)
        return page


def main() -> None:
    """Make the batch, look at it, write the pictures."""
    parser = argparse.ArgumentParser(prog="python docs/screenshots.py", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--out", type=Path, default=_ROOT / "docs/images", help="(default: docs/images)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="make the batch here, or look at the one that is here")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        with run_server(folder) as uri:
            if not (folder / "releases").exists():
                make_batches(folder, uri)
            experiment = MlflowClient(uri).get_experiment_by_name(_EXPERIMENT)
            assert experiment is not None
            with run_browser() as context:
                take_pictures(context, Gallery(folder, uri, experiment.experiment_id), options.out)


def make_batches(folder: Path, uri: str) -> None:
    """Two releases; before the second, a model was changed."""
    shutil.copytree(_ROOT / "docs/gallery", folder, dirs_exist_ok=True)
    config = folder / "my_conf/model/encoder.yaml"
    # Under a name of its own: the shipped bert.yaml would go before one of ours.
    bert = (_ROOT / "conf/model/bert.yaml").read_text()
    encoder = bert.replace("name: bert", "name: encoder")
    config.write_text(encoder)
    release(folder, uri)
    config.write_text(encoder.replace("num_hidden_layers: 2", "num_hidden_layers: 3"))
    release(folder, uri)


def release(folder: Path, uri: str) -> None:
    """`python -m pipeline +release=gallery`.

    Raises:
        CalledProcessError: If it came to another end than the one that the planted faults give it.
    """
    command = [sys.executable, "-m", "pipeline", "--config-dir", "my_conf", "+release=gallery"]
    command += ["tracking=server", f"tracking.experiment={_EXPERIMENT}", "tracking.dvc=false"]
    done = subprocess.run(command, cwd=folder, env=make_environment(MLFLOW_TRACKING_URI=uri), check=False)
    if done.returncode != _SOME_FAILED:
        raise subprocess.CalledProcessError(done.returncode, command)


def take_pictures(context: BrowserContext, gallery: Gallery, out: Path) -> None:
    """Each page from where a reviewer would open it: the disk, or MLflow."""
    passed = gallery.folder / "exports/encoder-fp32/report.html"
    failed = gallery.find_newest("runs/*/exports/ranker-fp32/report.html")
    from_disk = {
        "report-passed": Section(passed, end="Signature"),
        "report-signature-and-cost": Section(passed, "Signature", "Optimizer passes"),
        "report-failed": Section(failed, end="Signature"),
        "batch": Section(gallery.find_newest("runs/*/index.html"), end="Why"),
        "release": Section(gallery.find_newest("releases/*/changes.html"), end="Models"),
    }
    for name, section in from_disk.items():
        page = context.new_page()
        page.goto(section.page.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = false)")
        end = find_heading(page, section.end)
        write_picture(page, find_heading(page, section.start) if section.start else 0, end, out / f"{name}.png")
    page = gallery.show(context, gallery.find_run("mlp-fp32"), "graph.html", "svg .node")
    # MLflow goes on asking its server, so that its page is never done; this is for the viewer to come to rest.
    page.wait_for_timeout(_REST_MS)
    write_picture(page, 0, _HEIGHT, out / "graph-in-mlflow.png")


def find_heading(page: Page, text: str) -> int:
    """Pixels from the page's top to the middle of the space above a heading."""
    heading = page.get_by_role("heading", name=text, exact=True, level=2)
    return round(float(heading.evaluate("node => node.getBoundingClientRect().top"))) - _MARGIN


def write_picture(page: Page, top: int, bottom: int, path: Path) -> None:
    """A page's part from one height to another, in 256 colours at most.

    Args:
        page: As it is to be seen.
        top: In pixels of the page.
        bottom: In pixels of the page.
        path: Of the PNG.

    Raises:
        ValueError: If the file is larger than a picture may be.
    """
    picture = page.screenshot(full_page=True, clip={"x": 0, "y": top, "width": _WIDTH, "height": bottom - top})
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path}: {_WIDTH} x {bottom - top}, {size / 1000:.0f} kB")
    if size > _MAX_BYTES:
        raise ValueError(f"{path} has {size:,} bytes; at most {_MAX_BYTES:,} belong into the repository")


@contextmanager
def run_browser() -> Iterator[BrowserContext]:
    """The system's chromium, whose requests reach this machine alone."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise FileNotFoundError("no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        # Root has no sandbox to offer.
        browser = playwright.chromium.launch(executable_path=chromium, chromium_sandbox=os.geteuid() != 0)
        context = browser.new_context(viewport={"width": _WIDTH, "height": _HEIGHT}, color_scheme="light")
        context.route("**/*", _keep_in)
        yield context
        browser.close()


def _keep_in(route: Route) -> None:
    if urlsplit(route.request.url).hostname in (None, "127.0.0.1"):
        route.continue_()
    else:
        route.abort()


@contextmanager
def run_server(folder: Path) -> Iterator[str]:
    """`mlflow server` on the loopback address; yields its URI.

    Raises:
        TimeoutError: If it does not answer.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    with (folder / "server.log").open("w") as log:
        environment = make_environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_for(f"{uri}/health", server)
        yield uri
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def wait_for(address: str, server: "subprocess.Popen[bytes]") -> None:
    """Until the server answers.

    Raises:
        TimeoutError: If it ended, or has not answered for two minutes.
    """
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise TimeoutError(f"{address} does not answer")


def make_environment(**changes: str) -> dict[str, str]:
    """Ours, without what would point MLflow elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return {**kept, "MLFLOW_DISABLE_TELEMETRY": "true", **changes}


if __name__ == "__main__":
    main()
