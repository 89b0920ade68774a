import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pipeline import source_code
from pipeline.source_code import (
    Forward,
    Sources,
    Target,
    find_forward,
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


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("def forward(self, x, mask, scale=1.0): ...", Forward(("x", "mask"), ("scale",), False)),
        ("def forward(self, x, *, mask, scale=1.0): ...", Forward(("x", "mask"), ("scale",), False)),
        ("def forward(self, x, **rest): ...", Forward(("x",), (), True)),
        ("def forward(self, x, /, y=None): ...", Forward(("x",), ("y",), False)),
        ("@decorate\n    @decorate_with(1)\n    def forward(self, x): ...", Forward(("x",), (), False)),
        ("def forward(self): ...", Forward((), (), False)),
        ("def __init__(self, size): ...\n    def forward(self, x): ...", Forward(("x",), (), False)),
    ],
)
def test_forward_is_read_from_the_class_itself(project, body, expected):
    write(project / "sp_own.py", f"from torch import nn\nclass Net(nn.Module):\n    {body}\n")
    assert find_forward("sp_own.Net") == expected


def test_forward_is_read_from_a_base_class_in_the_same_file(project):
    write(
        project / "sp_base.py",
        """
        from torch import nn
        class Base(nn.Module):
            def forward(self, x, y=None): ...
        class Middle(Base): ...
        class Net(Middle):
            def helper(self, z): ...
        """,
    )
    assert find_forward("sp_base.Net") == Forward(("x",), ("y",), False)


@pytest.mark.parametrize(
    "import_line",
    [
        "from .base import Base",
        "from sp_split.base import Base",
        "from .base import Other as Base",
        "from . import Base",
        "from ..sp_split.base import Base",
    ],
)
def test_forward_is_read_from_a_base_class_in_another_module(project, import_line):
    if ".." in import_line:
        import_line = import_line.replace("from ..sp_split", "from ..models")
    write(project / "sp_split/__init__.py", "from .base import Base")
    base = "class Base:\n    def forward(self, x): ...\nclass Other:\n    def forward(self, x): ...\n"
    write(project / "sp_split/base.py", base)
    write(project / "sp_split/models/__init__.py", "from .base import Base")
    write(project / "sp_split/models/base.py", base)
    write(project / "sp_split/models/net.py", f"{import_line}\nclass Net(Base): ...\n")
    assert find_forward("sp_split.models.net.Net") == Forward(("x",), (), False)


def test_forward_is_followed_through_a_package_that_passes_the_class_on(project):
    write(project / "sp_api/__init__.py", "from ._impl import Net")
    write(project / "sp_api/_impl.py", "class Net:\n    def forward(self, tokens): ...\n")
    assert find_forward("sp_api.Net") == Forward(("tokens",), (), False)


@pytest.mark.parametrize(
    "text",
    [
        "def Net(): ...",
        "import functools\nNet = functools.partial(print)",
        "Net = type('Net', (), {})",
        "from torch import nn\nclass Net(nn.Module): ...",
        "from torch.nn import Module\nclass Net(Module): ...",
        "class Net(make_base()): ...",
        "class Net(Net): ...",
        "class Net(",
        "if True:\n    class Net:\n        def forward(self, x): ...",
    ],
)
def test_a_forward_that_the_source_does_not_show_is_none(project, text):
    write(project / "sp_dynamic.py", text)
    assert find_forward("sp_dynamic.Net") is None


def test_classes_that_are_each_other_s_base_end_the_search(project):
    write(project / "sp_one.py", "from sp_two import Net as Base\nclass Net(Base): ...")
    write(project / "sp_two.py", "from sp_one import Net as Base\nclass Net(Base): ...")
    assert find_forward("sp_one.Net") is None


# Each of these runs with another forward than that of Base: to take Base's would refuse a sound config.
@pytest.mark.parametrize(
    "text",
    [
        "class Net(Base):\n    def other(self, a, b): ...\n    forward = other",
        "class Net(Base):\n    if True:\n        def forward(self, a, b): ...",
        "class Net(sp_mixins.Forwards, Base): ...",
        (
            "from typing import overload\nclass Net(Base):\n    @overload\n    def forward(self, x): ...\n"
            "    def forward(self, a, b): ..."
        ),
        "class Net(Base): ...\nclass Net(Base):\n    def forward(self, a, b): ...",
    ],
    ids=["assigned", "conditional", "unread base first", "overload", "defined twice"],
)
def test_the_forward_of_a_base_class_is_not_taken_for_one_that_hides_it(project, text):
    write(project / "sp_mixins.py", "class Forwards:\n    def forward(self, a, b): ...\n")
    write(
        project / "sp_hides.py",
        f"import sp_mixins\nclass Base:\n    def forward(self, x): ...\n{textwrap.dedent(text)}",
    )
    assert find_forward("sp_hides.Net") in (None, Forward(("a", "b"), (), False))


def test_a_nested_class_has_no_forward_that_could_be_told(project):
    write(project / "sp_nested.py", "class Outer:\n    class Net:\n        def forward(self, x): ...\n")
    assert find_forward("sp_nested.Outer.Net") is None


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


def test_the_forward_of_a_transformers_model_is_read_without_importing_transformers_or_torch():
    script = """
        import sys
        from pipeline.source_code import find_forward, find_names, find_target
        forward = find_forward("transformers.models.bert.modeling_bert.BertModel")
        assert "BertModel" in find_names(find_target("transformers.models.bert.modeling_bert.BertModel"))
        print(forward.takes_any_keyword, *forward.required, *forward.optional)
        print(sorted({"transformers", "torch"} & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True, timeout=60
    )
    arguments, imported = done.stdout.splitlines()
    assert {"input_ids", "attention_mask", "token_type_ids"} <= set(arguments.split())
    assert imported == "[]"
