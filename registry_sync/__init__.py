"""Results on disk to MLflow and DVC. Reads directories; never runs an export, never imports torch."""

import os

# Read by MLflow as it is imported, by whichever module of ours comes first.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
