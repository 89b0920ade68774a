import sys
from pathlib import Path

import pytest
from source_files import write_source

from pipeline import source_code
from pipeline.source_code import (
    Sources,
    Target,
    find_names,
    find_sources,
    find_target,
    is_installed,
)


def test_a_module_is_found_without_being_run(project):
    path = write_source(project / "sp_raises.py", "raise RuntimeError\nclass Net: ...\n")
    assert find_target("sp_raises.Net") == Target("sp_raises", path, ("Net",))
    assert "sp_raises" not in sys.modules


def test_a_submodule_is_found_without_running_the_packages_above_it(project):
    write_source(project / "sp_outer/__init__.py", "raise RuntimeError")
    write_source(project / "sp_outer/inner/__init__.py", "raise RuntimeError")
    path = write_source(project / "sp_outer/inner/model.py", "class Net: ...")
    assert find_target("sp_outer.inner.model.Net") == Target("sp_outer.inner.model", path, ("Net",))
    assert not {"sp_outer", "sp_outer.inner"} & set(sys.modules)


def test_a_module_in_a_folder_without_init_is_found(project):
    path = write_source(project / "sp_folder/model.py", "class Net: ...")
    assert find_target("sp_folder.model.Net") == Target("sp_folder.model", path, ("Net",))


@pytest.mark.parametrize("outer_init", [True, False])
def test_a_folder_without_init_in_another_folder_is_searched(project, outer_init):
    if outer_init:
        write_source(project / "sp_above/__init__.py", "raise RuntimeError")
    path = write_source(project / "sp_above/bare/deeper/model.py", "class Net: ...")
    assert find_target("sp_above.bare.deeper.model.Net") == Target("sp_above.bare.deeper.model", path, ("Net",))
    assert find_target("sp_above.nowhere.Net") == (
        Target("sp_above", project / "sp_above/__init__.py", ("nowhere", "Net")) if outer_init else None
    )
    assert "sp_above" not in sys.modules


def test_a_name_that_a_package_gives_leads_to_its_init(project):
    path = write_source(project / "sp_package/__init__.py", "class Net: ...")
    assert find_target("sp_package.Net.Inner") == Target("sp_package", path, ("Net", "Inner"))


@pytest.mark.parametrize("dotted", ["sp_nowhere.Net", "sp_nowhere", "", ".Net", "sp_a..Net", "Net"])
def test_what_is_no_module_is_none(project, dotted):
    assert find_target(dotted) is None


def test_names_are_those_a_module_defines_or_imports(project):
    write_source(
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
    path = write_source(project / "sp_open.py", text)
    assert find_names(Target("sp_open", path, ("Net",))) is None


def test_names_of_a_package_are_unknown_for_submodules_count_too(project):
    write_source(project / "sp_names_package/__init__.py", "class Net: ...")
    assert find_names(find_target("sp_names_package.Net")) is None


def test_sources_follow_relative_and_absolute_imports_and_name_installed_packages(project):
    write_source(project / "sp_app/__init__.py", "")
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
        write_source(project / "sp_app/model.py", model),
        write_source(project / "sp_app/layers.py", "from ..sp_app import missing"),
        write_source(project / "sp_app/blocks/__init__.py", ""),
        write_source(project / "sp_app/blocks/conv.py", "from ...sp_nothing import x\nfrom ..deep import y"),
        write_source(project / "sp_app/deep.py", "import sp_app.model"),
        write_source(project / "sp_tools/__init__.py", ""),
        write_source(project / "sp_tools/norms.py", ""),
        write_source(project / "sp_late.py", ""),
        project / "sp_app/__init__.py",
    ]
    write_source(project / "sp_unused.py", "")
    write_source(project / "sp_app/unused.py", "")
    named = {str(path.relative_to(project)): path for path in files}
    assert find_sources(find_target("sp_app.model.Net")) == Sources(named, ["omegaconf", "torch"])


def test_sources_hold_the_packages_that_run_before_the_module(project):
    init = write_source(project / "sp_above/__init__.py", "import torch\ntorch.set_default_dtype(torch.float64)")
    model = write_source(project / "sp_above/model.py", "class Net: ...")
    assert find_sources(find_target("sp_above.model.Net")).files == {
        "sp_above/__init__.py": init,
        "sp_above/model.py": model,
    }


def test_installed_and_standard_code_is_told_from_the_project_s(project):
    own = write_source(project / "sp_mine.py", "")
    assert not is_installed(own)
    assert not is_installed(Path(source_code.__file__))
    assert is_installed(find_target("omegaconf.omegaconf.OmegaConf").path)
    assert is_installed(find_target("json.decoder.JSONDecoder").path)
