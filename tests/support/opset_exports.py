"""Exports one shipped model at several opsets, in the process that calls it."""

import logging
from pathlib import Path

from hydra import compose, initialize_config_dir

from exporter import ExportResult
from exporter.conductor import run_export
from pipeline.config import CONF_DIR, compose_spec, read_config, register

__all__ = ["export_at_opsets"]


def export_at_opsets(model: str, opsets: list[int], path: Path) -> list[ExportResult]:
    """The results, one an opset; the dims are tried a little beyond the example, to save time."""
    logging.disable(logging.WARNING)
    register()
    results = []
    for opset in opsets:
        overrides = [f"+model={model}", f"export.opset_version={opset}", "parity.max_input_elements=50000"]
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            spec = compose_spec(read_config(compose("config", overrides=overrides)), overrides)
        results.append(run_export(spec, path / spec.id, threads=1))
    return results
