"""What no release can be made with is told before anything starts."""

import pytest

from exporter.errors import ConfigError
from registry_sync.release_options import KnownFailure, ReleaseBudgets, ReleaseOptions, require_sound

KNOWN = KnownFailure("bert", "0123456789ab", "https://example.org/1", "2026-12-31")


def test_sound_options_are_let_pass() -> None:
    require_sound(ReleaseOptions(name="zoo"))
    require_sound(ReleaseOptions(name="zoo", version="1.0", known_failures=[KNOWN]))
    require_sound(ReleaseOptions(name="zoo", budgets=ReleaseBudgets(max_size_change_percent=None)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a/b"}, "release.name: 'a/b'"),
        ({"version": ".1"}, "release.version: '.1'"),
        ({"name": "a" * 101}, "release.name: aaaaaaaaaaaaaaaaaaaa...: has 101 characters, 100 are allowed"),
        (
            {"budgets": ReleaseBudgets(max_parity_factor=0.5)},
            "release.budgets.max_parity_factor: 0.5 must be at least 1",
        ),
        ({"budgets": ReleaseBudgets(memory_slack_mib=float("nan"))}, "release.budgets.memory_slack_mib: nan must"),
        ({"known_failures": [KnownFailure("b", "0123", KNOWN.issue, KNOWN.expires)]}, "known_failures[0].fingerprint"),
        ({"known_failures": [KnownFailure("b", KNOWN.fingerprint, "soon", KNOWN.expires)]}, "issue: 'soon' is no link"),
        (
            {"known_failures": [KNOWN, KnownFailure("b", KNOWN.fingerprint, KNOWN.issue, "31.12.2026")]},
            "release.known_failures[1].expires: '31.12.2026' is no date",
        ),
    ],
)
def test_what_will_not_do_is_told(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        require_sound(ReleaseOptions(**{"name": "zoo"} | changes))
    assert message in str(caught.value)
