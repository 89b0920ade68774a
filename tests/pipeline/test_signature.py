import subprocess
import sys
import textwrap

import pytest
from source_files import write_source

from pipeline.signature import Forward, find_forward


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
    write_source(project / "sp_own.py", f"from torch import nn\nclass Net(nn.Module):\n    {body}\n")
    assert find_forward("sp_own.Net") == expected


def test_forward_is_read_from_a_base_class_in_the_same_file(project):
    write_source(
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
    write_source(project / "sp_split/__init__.py", "from .base import Base")
    base = "class Base:\n    def forward(self, x): ...\nclass Other:\n    def forward(self, x): ...\n"
    write_source(project / "sp_split/base.py", base)
    write_source(project / "sp_split/models/__init__.py", "from .base import Base")
    write_source(project / "sp_split/models/base.py", base)
    write_source(project / "sp_split/models/net.py", f"{import_line}\nclass Net(Base): ...\n")
    assert find_forward("sp_split.models.net.Net") == Forward(("x",), (), False)


def test_forward_is_followed_through_a_package_that_passes_the_class_on(project):
    write_source(project / "sp_api/__init__.py", "from ._impl import Net")
    write_source(project / "sp_api/_impl.py", "class Net:\n    def forward(self, tokens): ...\n")
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
    write_source(project / "sp_dynamic.py", text)
    assert find_forward("sp_dynamic.Net") is None


def test_classes_that_are_each_other_s_base_end_the_search(project):
    write_source(project / "sp_one.py", "from sp_two import Net as Base\nclass Net(Base): ...")
    write_source(project / "sp_two.py", "from sp_one import Net as Base\nclass Net(Base): ...")
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
    write_source(project / "sp_mixins.py", "class Forwards:\n    def forward(self, a, b): ...\n")
    write_source(
        project / "sp_hides.py",
        f"import sp_mixins\nclass Base:\n    def forward(self, x): ...\n{textwrap.dedent(text)}",
    )
    assert find_forward("sp_hides.Net") in (None, Forward(("a", "b"), (), False))


def test_a_nested_class_has_no_forward_that_could_be_told(project):
    write_source(project / "sp_nested.py", "class Outer:\n    class Net:\n        def forward(self, x): ...\n")
    assert find_forward("sp_nested.Outer.Net") is None


def test_the_forward_of_a_transformers_model_is_read_without_importing_transformers_or_torch():
    script = """
        import sys
        from pipeline.signature import find_forward
        from pipeline.source_code import find_names, find_target
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
