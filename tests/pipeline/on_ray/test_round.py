"""What nodes say becomes an executor's events; here they say it by heart, and so what real ones seldom say."""

import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import pytest

from exporter.directory import ExportDirectory
from exporter.errors import FailureKind
from exporter.files import write_json
from exporter.spec import ExportSpec, Fill, FillKind, Input, ModelSpec, Precision, PrecisionName
from exporter.worker import STATUS_STORAGE
from pipeline.executor import Ended, Ending, Notice, Pulse, Started, Task
from pipeline.on_ray import round as module
from pipeline.on_ray.demand import Demand
from pipeline.on_ray.messages import Beat, Began, Failed, Finished, Lacks, Parcel, Piece, Said, Unfit
from pipeline.on_ray.round import Order, Round

DONE = (Began(), Finished(Ended(Task("node's own", Path("/node")), Ending.exited, 0, 1.5), has_result=False))


class Scripted:
    """Streams of nodes that say a script, one message a look, each export its next one."""

    def __init__(self, **scripts: Iterable[Iterable[Said]]) -> None:
        self.scripts = {name: deque(parts) for name, parts in scripts.items()}
        self.open: dict[str, deque[Said]] = {}
        self.parcels: list[Parcel] = []
        self.kept: dict[str, bytes] = {}
        self.most_open = 0
        self.cancelled: list[bool] = []
        self.dropped: list[str] = []

    def start(self, parcel: Parcel, demand: Demand) -> None:
        self.parcels.append(parcel)
        self.open[parcel.task.id] = deque(self.scripts[parcel.task.id].popleft())
        self.most_open = max(self.most_open, len(self.open))

    def keep_data(self, name: str, piece: bytes) -> None:
        self.kept[name] = self.kept.get(name, b"") + piece

    def read(self, timeout_s: float) -> list[tuple[str, Said]]:
        said = [(name, script.popleft()) for name, script in self.open.items() if script]
        for name, message in said:
            if isinstance(message, Lacks | Unfit | Finished | Failed):
                del self.open[name]
        return said

    def cancel(self, *, force: bool) -> None:
        self.cancelled.append(force)
        if force:
            self.open = {name: deque([Failed(Ending.lost, "cancelled")]) for name in self.open}

    def drop(self, name: str) -> None:
        self.dropped.append(name)
        del self.open[name]


def make_order(parent: Path, name: str = "m", **fills: str) -> Order:
    directory = ExportDirectory(parent / name)
    directory.path.mkdir()
    inputs = {key: Input(shape=[2], fill=Fill(kind=FillKind.file, path=path)) for key, path in fills.items()}
    model = ModelSpec(name=name, source={"_target_": "m.M"}, inputs=inputs or {"x": Input(shape=[2])})
    precision = Precision(PrecisionName.fp32, rtol=1e-4, atol=1e-5)
    write_json(directory.spec, ExportSpec(id=name, model=model, precision=precision))
    return Order(Task(name, directory.path, preloads=(f"library.{name}",)), Demand(2, 1 << 30))


def fits_always(demand: Demand) -> bool:
    return True


def run(streams: Scripted, *orders: Order, limit: int = 9) -> list[object]:
    events = Round(streams, orders, limit, fits=fits_always, is_here=False, was_alone=False).run()
    return [event for event in events if not isinstance(event, Pulse)]


def test_an_end_is_of_the_batchs_task_and_not_of_the_nodes(tmp_path):
    order = make_order(tmp_path)
    assert run(Scripted(m=[DONE]), order) == [Started(order.task), Ended(order.task, Ending.exited, 0, 1.5)]
    assert [path.name for path in order.task.directory.iterdir()] == ["spec.json"]


def test_exports_go_to_ray_in_order_and_no_more_than_the_limit_at_a_time(tmp_path):
    orders = [make_order(tmp_path, name) for name in "abcde"]
    streams = Scripted(**{name: [DONE] for name in "abcde"})
    run(streams, *orders, limit=2)
    assert [parcel.task.id for parcel in streams.parcels] == list("abcde")
    assert streams.most_open == 2


def test_a_parcel_has_what_a_node_needs_that_sees_nothing_of_ours(tmp_path):
    orders = [make_order(tmp_path, name) for name in "ab"]
    streams = Scripted(a=[DONE], b=[DONE])
    run(streams, *orders)
    first, second = streams.parcels
    assert first.files == {"spec.json": (tmp_path / "a/spec.json").read_bytes()}
    assert first.task.directory.is_absolute()
    assert first.threads == 2
    assert len(first.token) == 32
    assert first.token != second.token
    assert first.task.preloads == second.task.preloads == ("library.a", "library.b")


def test_files_come_back_in_pieces_and_our_note_of_the_step_makes_way(tmp_path):
    order = make_order(tmp_path)
    step = order.task.directory / "current_step"
    pieces = [
        Piece("model.onnx", b"ab"),
        Piece("repro/repro.py", b"x"),
        Piece("model.onnx", b"cd"),
        Piece("empty", b""),
    ]
    streams = Scripted(m=[[DONE[0], Beat(5, "capture"), *pieces, DONE[1]]])
    events = Round(streams, [order], 1, fits=fits_always, is_here=False, was_alone=False).run()
    seen = [(event, step.read_text() if step.exists() else None) for event in events]
    assert (Pulse({"m": 5}), "capture") in seen
    assert not step.exists()
    assert (order.task.directory / "model.onnx").read_bytes() == b"abcd"
    assert (order.task.directory / "repro/repro.py").read_bytes() == b"x"
    assert (order.task.directory / "empty").read_bytes() == b""


def test_the_step_of_a_node_that_is_lost_is_still_known(tmp_path):
    order = make_order(tmp_path)
    run(Scripted(m=[[Began(), Beat(None, "parity"), Failed(Ending.lost, "the node went")]]), order)
    assert ExportDirectory(order.task.directory).read_current_step() == "parity"


@pytest.mark.parametrize("name", ["../other/model.onnx", "/etc/passwd"])
def test_a_node_writes_into_the_exports_directory_alone(tmp_path, name):
    with pytest.raises(ValueError, match="outside of the export's directory"):
        run(Scripted(m=[[Began(), Piece(name, b"x")]]), make_order(tmp_path))
    assert not (tmp_path / "other").exists()


def test_a_disk_that_takes_no_more_is_told_when_the_export_has_ended(tmp_path):
    order = make_order(tmp_path)
    (order.task.directory / "model.onnx").mkdir()
    events = run(Scripted(m=[[Began(), Piece("model.onnx", b"x"), Piece("log", b"x"), DONE[1]]]), order)
    assert (events[-1].ending, events[-1].code) == (Ending.exited, STATUS_STORAGE)


def test_a_directory_that_cannot_be_written_is_an_export_that_has_ended(tmp_path):
    orders = [Order(Task("gone", tmp_path / "gone"), Demand(1, 1)), make_order(tmp_path)]
    events = run(Scripted(m=[DONE]), *orders)
    assert [(event.task.id, type(event)) for event in events[:2]] == [("gone", Started), ("gone", Ended)]
    assert (events[1].ending, events[1].code) == (Ending.exited, STATUS_STORAGE)
    assert events[-1].task.id == "m"


@pytest.mark.parametrize(
    ("said", "ending"),
    [
        (Unfit("other versions"), Ending.lost),
        (Failed(Ending.out_of_memory, "Ray says so"), Ending.out_of_memory),
    ],
)
def test_what_never_began_has_a_start_all_the_same_before_its_end(tmp_path, said, ending):
    order = make_order(tmp_path)
    started, ended = run(Scripted(m=[[said]]), order)
    assert started == Started(order.task)
    assert (ended.ending, ended.duration_s) == (ending, 0.0)
    assert ended.evidence in ("other versions", "Ray says so")


def test_a_notice_is_passed_on_once(tmp_path):
    orders = [make_order(tmp_path, name) for name in "ab"]
    said = [Notice("slow"), *DONE]
    events = run(Scripted(a=[said], b=[said]), *orders)
    assert [event for event in events if isinstance(event, Notice)] == [Notice("slow")]


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "x.npy").write_bytes(b"numbers")
    return folder


def test_a_file_that_a_node_lacks_is_kept_for_it_once_and_the_export_starts_anew(tmp_path, project):
    orders = [make_order(tmp_path, name, x="x.npy") for name in "ab"]
    lacks = [Lacks(("x.npy",), "node")]
    streams = Scripted(a=[lacks, DONE], b=[lacks, DONE])
    events = run(streams, *orders)
    assert streams.kept == {"x.npy": b"numbers"}
    assert [event.ending for event in events if isinstance(event, Ended)] == [Ending.exited, Ending.exited]
    assert sum(isinstance(event, Started) for event in events) == 2


def test_a_file_that_changes_while_it_is_sent_does_not_go_round_and_round(tmp_path, project):
    lacks = [Lacks(("x.npy",), "node")]
    events = run(Scripted(m=[lacks, lacks]), make_order(tmp_path, x="x.npy"))
    assert events[-1].ending is Ending.lost
    assert events[-1].evidence == "node was sent x.npy, and got other bytes; does the file change?"


@pytest.mark.parametrize(("name", "words"), [("{}/x.npy", "by a relative path"), ("x.npy", "too large to be sent")])
def test_a_file_that_cannot_be_sent_fails_the_export_and_is_named_with_the_node(
    tmp_path, project, monkeypatch, name, words
):
    monkeypatch.setattr("pipeline.on_ray.data_files._MAX_SENT_BYTES", 6)
    name = name.format(project)
    order = make_order(tmp_path, x=name)
    events = run(Scripted(m=[[Lacks((name,), "node-7")]]), order)
    assert events == [Started(order.task), Ended(order.task, Ending.exited, 0, 0.0)]
    failure = ExportDirectory(order.task.directory).read_result().failure
    assert failure.kind is FailureKind.input_error
    assert f"{name}: node-7 has no such file" in failure.cause
    assert words in failure.cause


def test_a_result_that_a_file_system_shows_late_is_waited_for(tmp_path):
    order = make_order(tmp_path)
    path = order.task.directory / "result.json"
    threading.Timer(0.5, path.write_text, ["{}"]).start()
    ended = Ended(order.task, Ending.exited, 0, 1.0)
    run(Scripted(m=[[Began(), Finished(ended, has_result=True)]]), order)
    assert path.exists()


def test_a_round_that_is_closed_ends_what_runs_politely_and_then_rudely(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_GRACE_S", 0.2)
    streams = Scripted(a=[[Began()]], b=[[Began()]])
    events = Round(
        streams, [make_order(tmp_path, name) for name in "ab"], 9, fits=fits_always, is_here=False, was_alone=False
    ).run()
    next(events)
    events.close()
    assert streams.cancelled == [False, True]
    assert streams.open == {}
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["spec.json", "spec.json"]


def test_an_export_that_waits_for_a_node_that_is_gone_is_lost_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LOOK_S", 0.0)
    monkeypatch.setattr(module, "_ABSENCE_S", 0.05)
    waits, runs = make_order(tmp_path, "waits"), make_order(tmp_path, "runs")
    streams = Scripted(waits=[[]], runs=[[Began(), *[Beat(None, None)] * 3]])
    answers = iter([True, False, True])
    looks: list[Demand] = []

    def fits(demand: Demand) -> bool:
        looks.append(demand)
        return next(answers, False)

    ended = []
    events = Round(streams, [waits, runs], 2, fits=fits, is_here=False, was_alone=False).run()
    for event in events:
        if isinstance(event, Pulse) and ended and "runs" in streams.open and not streams.open["runs"]:
            streams.open["runs"].append(DONE[1])
        if isinstance(event, Ended):
            ended.append(event)
    assert [(event.task.id, event.ending) for event in ended] == [("waits", Ending.lost), ("runs", Ending.exited)]
    assert ended[0].evidence == "the cluster has lost every node that could give it 2 cores and 1,024 MiB of memory"
    assert streams.dropped == ["waits"]
    # One that runs needs no room any more, and a node that was away for a moment counts as there.
    assert len(looks) > 4
