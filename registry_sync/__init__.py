"""Results on disk to MLflow and DVC. Reads directories; never runs an export, never imports torch."""
