"""The throughput benchmark: what it counts, and what it makes of it; stubs in place of exports."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.throughput.contenders import Contender, Record, cold_scripts, olive, pipeline
from benchmarks.throughput.models import MODELS, choose_models, write_configs
from benchmarks.throughput.table import render_table, render_targets, summarize

ROOT = Path(__file__).resolve().parents[2]
BURN_S = 0.4
BURN = f"import time\nwhile time.process_time() < {BURN_S}: pass\n"
WRITE = "import pathlib; pathlib.Path('mlp').mkdir(); pathlib.Path('mlp/model.onnx').touch()\n"
# A daemon: its parent is gone before it ends, as multiprocessing's resource tracker's is.
DAEMON = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {BURN!r}], start_new_session=True)\n"
SLEEP = "import time; time.sleep(600)\n"


def run_stub(folder, *programs, time_limit_s=60.0, with_memory=False):
    """The record of a contender with these commands; taken in a process of its own, since it adopts orphans."""
    program = (
        "import json, sys\nfrom dataclasses import asdict\nfrom pathlib import Path\n"
        "from benchmarks.throughput.contenders import Contender, run_contender\n"
        "from benchmarks.throughput.models import MODELS\n"
        "programs, folder, limit, memory = json.loads(sys.argv[1])\n"
        "contender = Contender(key='a', label='stub', models=MODELS[:1],"
        " commands=[[sys.executable, '-c', item] for item in programs])\n"
        "record = run_contender(contender, 1, Path(folder), threads=1, time_limit_s=limit, with_memory=memory)\n"
        "print(json.dumps(asdict(record)))\n"
    )
    arguments = json.dumps([programs, str(folder / "run"), time_limit_s, with_memory])
    command = [sys.executable, "-c", program, arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert not (folder / "run").exists()
    return Record(**json.loads(done.stdout))


def make_record(key, number, wall_s, **changes):
    given = {"num_exports": 16, "cpu_s": 1.1 * wall_s, **changes}
    return Record(contender=key, round=number, wall_s=wall_s, **given)


def make_contender(key):
    return Contender(key=key, label=f"stub {key}", models=MODELS, commands=[])


def test_cpu_time_of_children_and_of_daemons_is_counted_in_every_command(tmp_path):
    in_child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}])\n"
    record = run_stub(tmp_path, in_child + WRITE, DAEMON)
    assert record.failure == ""
    assert record.cpu_s >= 2 * BURN_S
    assert len(record.command_wall_s) == 2
    assert record.wall_s == sum(record.command_wall_s)
    assert record.peak_bytes is None


def test_memory_is_that_of_the_whole_tree(tmp_path):
    hold = "import time; held = b'1' * (64 << 20); time.sleep(1.5)\n"
    two = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {hold!r}])\n{hold}"
    record = run_stub(tmp_path, WRITE + two, with_memory=True)
    assert record.failure == ""
    assert record.peak_bytes > 128 << 20


@pytest.mark.parametrize(
    ("program", "failure"),
    [
        ("print('fine')", "no file for mlp"),
        ("raise SystemExit('there is no such model')", "exit status 1: there is no such model"),
        ("import os; os.abort()", "signal 6"),
        (SLEEP, "not done in time"),
    ],
)
def test_a_command_that_does_not_do_its_work_fails(tmp_path, program, failure):
    record = run_stub(tmp_path, program, time_limit_s=2.0 if program == SLEEP else 60.0)
    assert record.failure == failure


def test_a_figure_is_of_medians_and_the_memory_round_does_not_count():
    records = [
        make_record("c2", 0, 90.0, own_cpu_s=10.0, peak_bytes=2**30),
        *(
            make_record("c2", number, wall_s, cpu_s=cpu_s, own_cpu_s=10.0)
            for number, wall_s, cpu_s in ((1, 8.0, 11.0), (2, 16.0, 12.0), (3, 9.0, 30.0))
        ),
    ]
    found = summarize([make_contender("c2")], records)["c2"]
    assert (found.lowest_wall_s, found.wall_s, found.highest_wall_s) == (8.0, 9.0, 16.0)
    assert found.exports_per_s == 16 / 9
    assert found.overhead == pytest.approx(0.2)
    assert found.peak_bytes == 2**30


def test_the_table_has_a_line_for_each_and_says_why_one_has_no_numbers():
    contenders = [make_contender("a"), make_contender("e")]
    records = [make_record("a", 1, 80.0), make_record("e", 1, 3.0, failure="exit status 1: no | such option")]
    header, rule, good, bad = render_table(contenders, records, summarize(contenders, records))
    assert good == "| (a) stub a | 16 | 80.0, 80.0, 80.0 | 5.00 | 0.20 | 88.0 |  |  |"
    assert bad == "| (e) stub e | 16 | round 1: exit status 1: no / such option | | | | | |"
    assert {line.count("|") for line in (header, rule, good, bad)} == {9}


def test_targets_are_met_or_not_or_not_measured():
    keys = ("a", "b", "c2", "c2t", "d")
    contenders = [make_contender(key) for key in keys]
    walls = {"a": 100.0, "b": 36.0, "c2": 20.0, "c2t": 10.0, "d": 29.0}
    records = [make_record(key, 1, wall_s, own_cpu_s=19.0) for key, wall_s in walls.items()]
    _, _, cold, loop, optimum, olives, overhead, of_more = render_targets(summarize(contenders, records))
    assert cold.endswith("| at least 5x | 5.00x | met |")
    assert loop.endswith("| at least 1.8x | 1.80x | met |")
    assert optimum.endswith("| at least 3x | 2.90x | not met |")
    assert olives.endswith("| at least 10x | | not measured |")
    assert overhead == "| CPU beyond the exports' own, (c2) of 16 exports | under 15% | 15.8% | not met |"
    assert of_more.endswith("(c2w) | under 15% | | not measured |")


def test_all_contenders_are_given_the_same_models_and_shapes(tmp_path):
    models = choose_models(["bert_tiny", "mlp"])
    write_configs(models, tmp_path)
    written = {path.stem: yaml.safe_load(path.read_text()) for path in (tmp_path / "model").iterdir()}
    assert {name: node["inputs"] for name, node in written.items()} == {model.name: model.inputs for model in models}
    (command,) = pipeline("c2", models, tmp_path, 2).commands
    assert "+model=mlp,bert_tiny" in command
    assert [command[-1] for command in cold_scripts(models).commands] == ["mlp", "bert_tiny"]
    bert = models[1]
    assert (bert.sizes("input_ids"), bert.dynamic_axes("input_ids")) == ([2, 16], {0: "batch", 1: "seq"})
    (command,) = olive("olive", [bert], tmp_path).commands
    assert str(tmp_path / "bert_tiny") in command


def test_names_are_those_of_the_list():
    with pytest.raises(ValueError, match="no model bertt; there are bert_small, "):
        choose_models(["bertt"])


def test_a_wrong_command_line_says_how_it_is_used():
    command = [sys.executable, "-m", "benchmarks.throughput", "out", "--models", "bertt"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "invalid choice: 'bertt'" in done.stderr


@pytest.mark.slow
def test_a_run_writes_table_numbers_and_figures_and_says_who_is_missing(tmp_path):
    command = [sys.executable, "-m", "benchmarks.throughput", str(tmp_path / "out"), "--models", "mlp", "vit_tiny"]
    done = subprocess.run(
        [*command, "--rounds", "1", "--contenders", "b", "c2", "e"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "(e) is left out: its program is not on PATH; give it with --olive PATH" in done.stderr
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [f"throughput.{suffix}" for suffix in ("json", "md", "png", "svg")]
    assert (tmp_path / "out" / "throughput.md").read_text() == done.stdout
    records = json.loads((tmp_path / "out" / "throughput.json").read_text())["records"]
    assert [(record["contender"], record["failure"]) for record in records] == [("b", ""), ("c2", "")]
    assert 0 < records[1]["own_cpu_s"] < records[1]["cpu_s"]
