"""Which installed packages the workers of a batch will need, told without importing any."""

import subprocess
import sys
import textwrap

import pytest

from exporter.spec import ExportOptions, ExportSpec, ModelSpec, Precision, PrecisionName
from pipeline.preloads import find_preloads
from pipeline.source_code import forget_sources

BERT = "transformers.models.bert.modeling_bert.BertModel"
CONFIG = "transformers.models.bert.configuration_bert.BertConfig"


def make_spec(source, **model):
    options = ExportOptions()
    return ExportSpec(
        id="one",
        model=ModelSpec(name="one", source=source, inputs={}, **model),
        export=options,
        precision=Precision(name=PrecisionName.fp32, rtol=1e-4, atol=1e-5),
    )


def test_targets_in_installed_packages_are_named_each_once():
    source = {"_target_": BERT, "config": {"_target_": CONFIG}, "teacher": [{"_target_": BERT}]}
    assert find_preloads(make_spec(source)) == (CONFIG, BERT)


def test_factories_constants_and_tables_count_too():
    spec = make_spec({"_target_": "omegaconf.OmegaConf"}, input_factory={"_target_": "rich.print"})
    spec.model.constants = {"x": {"_target_": "hydra.utils.get_class"}}
    spec.export.custom_translation_table = {"_target_": "yaml.safe_load"}
    assert find_preloads(spec) == ("hydra.utils.get_class", "omegaconf.OmegaConf", "rich.print", "yaml.safe_load")


@pytest.mark.parametrize("target", ["torch.nn.Linear", "json.loads", "numpy.zeros", "nowhere.Net", "Net", "yaml.a-b"])
def test_what_is_there_already_or_nowhere_is_left_out(target):
    assert find_preloads(make_spec({"_target_": target})) == ()


def test_of_the_project_s_own_code_what_it_imports_at_its_top_level_counts(project):
    (project / "pl_layers.py").write_text("from omegaconf import *\nimport yaml.nodes, os.path\n")
    text = """
        from __future__ import annotations
        import torch.nn.functional as F
        import rich.console as console, json
        from typing import TYPE_CHECKING
        from transformers import BertModel, BertConfig as Config
        from pl_layers import Norm
        from . import nothing
        try:
            import psutil
        except ImportError:
            import hydra
        if TYPE_CHECKING:
            import mlflow
        def late():
            import dvc
    """
    (project / "pl_model.py").write_text(textwrap.dedent(text))
    transformers = ("transformers.BertConfig", "transformers.BertModel")
    expected = ("omegaconf", "psutil", "rich.console", *transformers, "yaml.nodes")
    assert find_preloads(make_spec({"_target_": "pl_model.Net"})) == expected


def test_a_project_s_file_that_hides_an_installed_package_is_not_preloaded(project):
    # A module of sympy's that nothing else imports.
    (project / "pl_shadow.py").write_text("import isympy")
    assert find_preloads(make_spec({"_target_": "pl_shadow.Net"})) == ("isympy",)
    forget_sources()
    (project / "isympy.py").write_text("")
    assert find_preloads(make_spec({"_target_": "pl_shadow.Net"})) == ()


def test_a_file_that_is_no_python_is_left_to_the_worker(project):
    (project / "pl_broken.py").write_text("import yaml\nclass Net(")
    assert find_preloads(make_spec({"_target_": "pl_broken.Net"})) == ()


def test_nothing_is_imported_to_find_out():
    script = f"""
        import sys
        from exporter.spec import *
        from pipeline.preloads import find_preloads
        model = ModelSpec(name="one", source={{"_target_": "{BERT}"}}, inputs={{}})
        print(*find_preloads(ExportSpec(id="one", model=model, precision=Precision(PrecisionName.fp32, 1e-4, 1e-5))))
        print({{"transformers", "torch"}} & set(sys.modules))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"{BERT}\nset()\n"
