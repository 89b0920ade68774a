import pytest

from registry_sync.redaction import redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:secret@host:5000/x", "http://host:5000/x"),
        ("tracking.uri=https://token@host", "tracking.uri=https://host"),
        ("postgresql://me:p%40ss@db/mlflow", "postgresql://db/mlflow"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
        ("http://host/path@version", "http://host/path@version"),
        ("a http://a:b@c and http://d:e@f", "a http://c and http://f"),
    ],
)
def test_user_names_and_passwords_of_urls_are_dropped(text: str, shown: str) -> None:
    assert redact(text) == shown
