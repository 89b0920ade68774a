"""A misspelt name finds its neighbour, a strange one finds none."""

import pytest

from exporter.suggestion import suggest


@pytest.mark.parametrize(
    ("name", "known", "wanted"),
    [
        ("imput", ["input", "output", "mask"], "input"),
        ("input_id", ["input_ids", "attention_mask"], "input_ids"),
        ("opest", ["opset_version", "optimize"], "opset_version"),
        ("Linaer", ["Linear", "LazyLinear", "Bilinear"], "Linear"),
        ("batch", ["batch"], "batch"),
        ("zzz", ["input", "mask"], None),
        ("x", [], None),
    ],
)
def test_the_nearest_known_name_is_suggested(name, known, wanted):
    assert suggest(name, known) == wanted


def test_the_order_of_the_known_names_does_not_matter():
    known = ["mask_a", "mask_b", "musk"]
    assert suggest("mask", known) == suggest("mask", reversed(known))
