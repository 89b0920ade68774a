"""Where results are tracked: plain data that the config's `tracking` group fills."""

from dataclasses import dataclass

__all__ = ["TrackingOptions"]


@dataclass
class TrackingOptions:
    """Which trackers hear of a batch."""

    # Log to MLflow.
    mlflow: bool = True
    # MLflow's tracking URI; null: sqlite in the working directory, mlflow.db.
    uri: str | None = None
    # MLflow's experiment; created if missing.
    experiment: str = "modelpress"
    # Commit published exports to DVC where the working directory is in a DVC repository.
    dvc: bool = True
    # Longest wait for MLflow over a whole batch, in seconds.
    budget_s: float = 60.0
