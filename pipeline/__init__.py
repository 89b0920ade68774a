"""Many exports: configs to specs, specs to workers, workers to results on disk."""
