"""`export.device=cuda` on the command line: refused without a GPU, and carried out by forked workers with one."""

import pytest
from project import Project

from exporter.cuda import why_no_cuda

NO_GPU = why_no_cuda()


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told_in_one_line_before_anything_starts(folder: Project) -> None:
    done = folder.run("-m", "+model=mlp,two_tower", "export.device=cuda")
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("modelpress: export.device: cuda, but ")
    assert line.endswith("leave export.device=cpu")
    assert done.stdout == ""
    assert not folder.runs()
    assert not folder.published()


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_the_parent_decides_without_torch(folder: Project) -> None:
    program = (
        "import sys; from pipeline.cli import run;"
        "code = run(['modelpress', '-m', '+model=mlp,two_tower', 'export.device=cuda']);"
        "print(code.value, 'torch' in sys.modules)"
    )
    done = folder.python("-c", program)
    assert done.stdout.split() == ["2", "False"], done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(bool(NO_GPU), reason=NO_GPU)
def test_workers_of_a_warm_server_use_the_gpu_or_leave_it_alone(folder: Project) -> None:
    done = folder.run("-m", "+model=mlp,two_tower", "export.device=cpu,cuda", "executor.workers=1", "tracking=off")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(folder.published()) == 4
