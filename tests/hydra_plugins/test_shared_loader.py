import textwrap
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import Container, DictConfig, ListConfig, OmegaConf

from hydra_plugins.modelpress_sweep.shared_loader import share_loader
from pipeline.config import CONF_DIR, register

MODELS = sorted(path.stem for path in (CONF_DIR / "model").glob("*.yaml"))

# What a sweep's jobs can differ in, with the jobs in the order in which they come.
SWEEPS = {
    "every shipped model": [[f"+model={name}"] for name in MODELS],
    "values of one model": [
        ["+model=bert", *values]
        for values in ([], ["++model.dims.batch.max=3"], [], ["~model.outputs"], ["model.dims={}"], ["model.seed=4"])
    ],
    "models, precisions and opsets": [
        [f"+model={model}", f"precision={precision}", f"export.opset_version={opset}"]
        for model, precision, opset in product(("mlp", "gru"), ("fp32", "fp16", "int8_weights"), (18, 21))
    ],
    "groups before the models": [
        [f"tracking={tracking}", f"+model={model}"]
        for tracking, model in product(("local", "off", "server"), ("vit", "clip"))
    ],
    "a release": [["+release=zoo", f"+model={name}"] for name in ("mlp", "bert", "mlp")],
    "with and without a group": [["+model=mlp"], [], ["+model=mlp"], ["+release=zoo"], []],
    "a node of Hydra's own": [["+model=mlp"], ["+model=mlp", "hydra.job.name=other"], ["+model=gru"]],
}

OWN = {
    "config.yaml": "defaults: [base, part: a, _self_]\nown: {kept: 1}\nlisted: [1, 2]\n",
    "base.yaml": "base: {x: 1, y: {z: 2}}\nlisted: [0]\n",
    "part/a.yaml": "one: 1\nnested: {deep: {deeper: 1}}\n",
    "part/b.yaml": "defaults: [a, /more/m@extra]\ntwo: ${..own.kept}\nnested: {deep: null}\n",
    "part/c.yaml": "# @package _global_\ndefaults: [override /part: a]\nbase: {y: null}\nlisted: [3]\n",
    "part/d.yaml": "# @package base.y\nz: ???\nw: ${oc.env:HOME,none}\n",
    "more/m.yaml": "value: ${hydra.job.name}\n",
    "more/n.yaml": "# @package base\ny: {v: 1}\n",
}
OWN_SWEEP = [
    list(filter(None, job))
    for job in product(("part=a", "part=b", "part=d"), ("", "+more=m", "+more=n"), ("", "base.x=5"))
]


@pytest.fixture
def shipped() -> Iterator[None]:
    register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        yield


@pytest.fixture
def own(tmp_path) -> Iterator[Path]:
    for name, text in OWN.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        yield tmp_path


def load_master(overrides: list[str]) -> tuple[Any, DictConfig]:
    loader = GlobalHydra.instance().config_loader()
    return loader, loader.load_configuration("config", overrides, run_mode=RunMode.MULTIRUN)


def describe(node: Any) -> Any:
    """A config with all that OmegaConf knows of each node: its type, its flags, its text before it is resolved."""
    traits = type(node), node._metadata.ref_type, node._metadata.object_type, node._metadata.flags
    if not isinstance(node, Container) or node._is_none() or node._is_missing() or node._is_interpolation():
        return *traits, node._value()
    if isinstance(node, ListConfig):
        return *traits, [describe(node._get_node(index)) for index in range(len(node))]
    return *traits, {key: describe(node._get_node(key)) for key in node}


def require_equal(jobs: list[list[str]], overrides: list[str]) -> None:
    loader, master = load_master(overrides)
    shared = share_loader(loader)
    # Else there is nothing to compare: see whether this Hydra suits, and add its version.
    assert shared is not loader
    for job in jobs:
        expected = loader.load_sweep_config(master, job)
        assert describe(shared.load_sweep_config(master, job)) == describe(expected), job


@pytest.mark.parametrize("sweep", SWEEPS)
def test_jobs_come_out_as_hydra_composes_them(shipped, sweep):
    require_equal(SWEEPS[sweep], ["hydra.verbose=false"])


def test_jobs_of_a_config_with_every_kind_of_default_come_out_as_hydra_composes_them(own):
    require_equal(OWN_SWEEP, [])


def test_a_job_does_not_show_what_was_done_to_the_one_before(shipped):
    loader, master = load_master([])
    shared = share_loader(loader)
    first, second, third = (shared.load_sweep_config(master, ["+model=mlp"]) for _ in range(3))
    OmegaConf.set_struct(first, False)
    first.model.dims.batch.max = "changed"
    del first.precision
    assert describe(second) == describe(third) == describe(loader.load_sweep_config(master, ["+model=mlp"]))


def test_a_file_is_read_once_for_all_jobs(own):
    loader, master = load_master([])
    shared = share_loader(loader)
    before = [OmegaConf.to_container(shared.load_sweep_config(master, job)) for job in OWN_SWEEP]
    for name in OWN:
        (own / name).write_text("{broken")
    after = [OmegaConf.to_container(shared.load_sweep_config(master, job)) for job in OWN_SWEEP]
    assert after == before


def test_another_search_path_is_another_set_of_files(own, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "part").mkdir()
    (elsewhere / "part" / "e.yaml").write_text("five: 5\n")
    job = [f"hydra.searchpath=[file://{elsewhere}]", "part=e"]
    require_equal([["part=b"], job, ["part=b"], job], [])


def test_with_a_hydra_that_was_not_tested_jobs_are_composed_as_it_does_it(shipped, monkeypatch):
    loader, _ = load_master([])
    monkeypatch.setattr(hydra, "__version__", "1.3.99")
    assert share_loader(loader) is loader
