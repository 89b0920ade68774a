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
        ("http://me:se@cret@host/x", "http://host/x"),
        ("http:/me:secret@host:5000: no such folder", "http:/host:5000: no such folder"),
        ("see file:/a@b and c:/me@host", "see file:/a@b and c:/me@host"),
        ("Failed to parse: http://me:se/cret@host", "Failed to parse: http://host"),
        ("http://me:se?c#ret@host:5000/x", "http://host:5000/x"),
        ("http://host:5000/path@version", "http://host:5000/path@version"),
        ("postgresql://db/x?user=me&password=secret&sslmode=off", "postgresql://db/x?user=me&password=***&sslmode=off"),
        ("sqlite:////tmp/tokens/mlflow.db tokenizer=bert", "sqlite:////tmp/tokens/mlflow.db tokenizer=bert"),
    ],
)
def test_user_names_and_passwords_of_urls_are_dropped(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_a_password_from_the_environment_is_dropped_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2!")
    assert redact("401 for Basic me:hunter2!") == "401 for Basic me:***"
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "")
    assert redact("as it was") == "as it was"
