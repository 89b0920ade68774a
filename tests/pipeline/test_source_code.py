import sys
import textwrap
from pathlib import Path

import pytest

from pipeline import source_code
from pipeline.source_code import (
    Sources,
    Target,
    find_names,
    find_sources,
    find_target,
    forget_sources,
    is_installed,
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project folder that modules are found in; what was looked up before is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    forget_sources()
    yield tmp_path
    forget_sources()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def test_a_module_is_found_without_being_run(project):
    path = write(project / "sp_raises.py", "raise RuntimeError\nclass Net: ...\n")
    assert find_target("sp_raises.Net") == Target("sp_raises", path, ("Net",))
    assert "sp_raises" not in sys.modules


def test_a_submodule_is_found_without_running_the_packages_above_it(project):
    write(project / "sp_outer/__init__.py", "raise RuntimeError")
    write(project / "sp_outer/inner/__init__.py", "raise RuntimeError")
    path = write(project / "sp_outer/inner/model.py", "class Net: ...")
    assert find_target("sp_outer.inner.model.Net") == Target("sp_outer.inner.model", path, ("Net",))
    assert not {"sp_outer", "sp_outer.inner"} & set(sys.modules)


def test_a_module_in_a_folder_without_init_is_found(project):
    path = write(project / "sp_folder/model.py", "class Net: ...")
    assert find_target("sp_folder.model.Net") == Target("sp_folder.model", path, ("Net",))


@pytest.mark.parametrize("outer_init", [True, False])
def test_a_folder_without_init_in_another_folder_is_searched(project, outer_init):
    if outer_init:
        write(project / "sp_above/__init__.py", "raise RuntimeError")
    path = write(project / "sp_above/bare/deeper/model.py", "class Net: ...")
    assert find_target("sp_above.bare.deeper.model.Net") == Target("sp_above.bare.deeper.model", path, ("Net",))
    assert find_target("sp_above.nowhere.Net") == (
        Target("sp_above", project / "sp_above/__init__.py", ("nowhere", "Net")) if outer_init else None
    )
    assert "sp_above" not in sys.modules


def test_a_name_that_a_package_gives_leads_to_its_init(project):
    path = write(project / "sp_package/__init__.py", "class Net: ...")
    assert find_target("sp_package.Net.Inner") == Target("sp_package", path, ("Net", "Inner"))


@pytest.mark.parametrize("dotted", ["sp_nowhere.Net", "sp_nowhere", "", ".Net", "sp_a..Net", "Net"])
def test_what_is_no_module_is_none(project, dotted):
    assert find_target(dotted) is None


def test_names_are_those_a_module_defines_or_imports(project):
    write(
        project / "sp_names.py",
        """
        import os.path
        import numpy as np
        from torch import nn as layers
        SIZE: int = 3
        a, b = 1, 2
        class Net: ...
        def build(): ...
        try:
            from fast import Fast
        except ImportError:
            class Fast: ...
        """,
    )
    names = find_names(find_target("sp_names.Net"))
    assert {"os", "np", "layers", "SIZE", "a", "b", "Net", "build", "Fast"} <= names
    assert "Nett" not in names


@pytest.mark.parametrize(
    "text",
    [
        "from sp_else import *",
        "def __getattr__(name): return object",
        "globals()['Net'] = type('Net', (), {})",
        "class Net(",
    ],
)
def test_names_of_a_module_that_may_define_more_are_unknown(project, text):
    path = write(project / "sp_open.py", text)
    assert find_names(Target("sp_open", path, ("Net",))) is None


def test_names_of_a_package_are_unknown_for_submodules_count_too(project):
    write(project / "sp_names_package/__init__.py", "class Net: ...")
    assert find_names(find_target("sp_names_package.Net")) is None


def test_sources_follow_relative_and_absolute_imports_and_name_installed_packages(project):
    write(project / "sp_app/__init__.py", "")
    model = """
        import json
        import torch
        from omegaconf import OmegaConf
        from . import layers
        from .blocks.conv import Conv
        import sp_tools.norms
        def late():
            import sp_late
    """
    files = [
        write(project / "sp_app/model.py", model),
        write(project / "sp_app/layers.py", "from ..sp_app import missing"),
        write(project / "sp_app/blocks/__init__.py", ""),
        write(project / "sp_app/blocks/conv.py", "from ...sp_nothing import x\nfrom ..deep import y"),
        write(project / "sp_app/deep.py", "import sp_app.model"),
        write(project / "sp_tools/__init__.py", ""),
        write(project / "sp_tools/norms.py", ""),
        write(project / "sp_late.py", ""),
        project / "sp_app/__init__.py",
    ]
    write(project / "sp_unused.py", "")
    write(project / "sp_app/unused.py", "")
    named = {str(path.relative_to(project)): path for path in files}
    assert find_sources(find_target("sp_app.model.Net")) == Sources(named, ["omegaconf", "torch"])


def test_sources_hold_the_packages_that_run_before_the_module(project):
    init = write(project / "sp_above/__init__.py", "import torch\ntorch.set_default_dtype(torch.float64)")
    model = write(project / "sp_above/model.py", "class Net: ...")
    assert find_sources(find_target("sp_above.model.Net")).files == {
        "sp_above/__init__.py": init,
        "sp_above/model.py": model,
    }


def test_installed_and_standard_code_is_told_from_the_project_s(project):
    own = write(project / "sp_mine.py", "")
    assert not is_installed(own)
    assert not is_installed(Path(source_code.__file__))
    assert is_installed(find_target("omegaconf.omegaconf.OmegaConf").path)
    assert is_installed(find_target("json.decoder.JSONDecoder").path)
