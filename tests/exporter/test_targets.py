from types import MappingProxyType

from exporter.targets import collect_targets


def test_targets_are_collected_at_any_depth_outermost_first():
    source = {
        "_target_": "a.A",
        "config": MappingProxyType({"_target_": "b.B", "x": 1}),
        "items": [{"_target_": "c.C"}, 3, "d.D", ({"_target_": "e.E"},)],
    }
    assert list(collect_targets([source, None, "f.F"])) == ["a.A", "b.B", "c.C", "e.E"]
