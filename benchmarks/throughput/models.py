"""The models of the throughput benchmark, one list for all contenders: small, random weights, nothing from a hub.

Plain data in the words of a model's YAML: the pipeline gets each as a file of a config folder, the bare script builds
the same tree by itself, and optimum's and Olive's command lines get those of transformers as folders that
`save_pretrained` wrote. Imports little: its time is that of the bare script too.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

__all__ = ["MODELS", "BenchmarkModel", "choose_models", "write_configs"]

# Also what optimum's command line takes for its example by default.
BATCH = 2
SEQ = 16
IMAGE_SIZE = 64
_VOCABULARY = 1000


@dataclass(frozen=True, kw_only=True)
class BenchmarkModel:
    """One model; `source`, `dims` and `inputs` are what its YAML would say."""

    name: str
    source: dict[str, Any]
    inputs: dict[str, dict[str, Any]]
    dims: dict[str, dict[str, int]] = field(default_factory=lambda: {"batch": {"min": 1, "max": 32, "example": BATCH}})
    # What the other command lines call the task; empty: they do not take this model.
    task: str = ""

    def sizes(self, name: str) -> list[int]:
        """The example's shape of one input."""
        return [self.dims[axis]["example"] if isinstance(axis, str) else axis for axis in self.inputs[name]["shape"]]

    def dynamic_axes(self, name: str) -> dict[int, str]:
        """The named axes of one input, as torch.onnx.export's `dynamic_shapes` takes them."""
        return {place: axis for place, axis in enumerate(self.inputs[name]["shape"]) if isinstance(axis, str)}


def choose_models(names: Iterable[str]) -> list[BenchmarkModel]:
    """Models by name, in the order of the list.

    Raises:
        ValueError: There is no such model.
    """
    wanted = list(names)
    known = {model.name for model in MODELS}
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"no model {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return [model for model in MODELS if model.name in wanted]


def write_configs(models: Iterable[BenchmarkModel], folder: Path) -> None:
    """Write a config folder for the pipeline's `--config-dir`: model/NAME.yaml for each."""
    import yaml

    (folder / "model").mkdir(parents=True)
    for model in models:
        node = {"name": model.name, "source": model.source, "dims": model.dims, "inputs": model.inputs}
        (folder / "model" / f"{model.name}.yaml").write_text(yaml.safe_dump(node, sort_keys=False))


def _sequential(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"_target_": "torch.nn.Sequential", "_args_": list(layers)}


def _perceptron(*widths: int) -> dict[str, Any]:
    layers: list[dict[str, Any]] = []
    for narrow, wide in pairwise(widths):
        linear = {"_target_": "torch.nn.Linear", "in_features": narrow, "out_features": wide}
        layers += [linear, {"_target_": "torch.nn.ReLU"}]
    return _sequential(*layers[:-1])


def _convolutions(*channels: int) -> dict[str, Any]:
    layers: list[dict[str, Any]] = []
    for narrow, wide in pairwise(channels):
        layers += [
            {
                "_target_": "torch.nn.Conv2d",
                "in_channels": narrow,
                "out_channels": wide,
                "kernel_size": 3,
                "stride": 2,
                "padding": 1,
            },
            {"_target_": "torch.nn.BatchNorm2d", "num_features": wide},
            {"_target_": "torch.nn.ReLU"},
        ]
    return _sequential(*layers)


def _transformers(model: str, config: str, **options: Any) -> dict[str, Any]:
    """A model and its config; `model` is `family:Class`."""
    family, model_class = model.split(":")
    return {
        "_target_": f"transformers.models.{family}.modeling_{family}.{model_class}",
        "config": {"_target_": f"transformers.models.{family}.configuration_{family}.{config}", **options},
    }


_IMAGE = {"shape": ["batch", 3, IMAGE_SIZE, IMAGE_SIZE]}
_TOKENS = {"shape": ["batch", "seq"], "dtype": "int64", "fill": {"kind": "randint", "high": _VOCABULARY}}
_MASK = {"shape": ["batch", "seq"], "dtype": "int64", "fill": {"kind": "ones"}}
_TEXT_DIMS = {"batch": {"min": 1, "max": 32, "example": BATCH}, "seq": {"min": 1, "max": 128, "example": SEQ}}
_TYPES = {"shape": ["batch", "seq"], "dtype": "int64", "fill": {"kind": "randint", "high": 2}}


def _bert(name: str, width: int, layers: int) -> BenchmarkModel:
    return BenchmarkModel(
        name=name,
        source=_transformers(
            "bert:BertModel",
            "BertConfig",
            vocab_size=_VOCABULARY,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=2 * width,
            # The default of 0.02 suits widths of 768; here untrained layers would add next to nothing.
            initializer_range=0.1,
        ),
        dims=_TEXT_DIMS,
        inputs={"input_ids": _TOKENS, "attention_mask": _MASK, "token_type_ids": _TYPES},
        task="feature-extraction",
    )


def _distilbert(name: str, width: int, layers: int) -> BenchmarkModel:
    return BenchmarkModel(
        name=name,
        source=_transformers(
            "distilbert:DistilBertForSequenceClassification",
            "DistilBertConfig",
            vocab_size=_VOCABULARY,
            dim=width,
            n_layers=layers,
            n_heads=4,
            hidden_dim=2 * width,
            initializer_range=0.1,
            num_labels=3,
        ),
        dims=_TEXT_DIMS,
        inputs={"input_ids": _TOKENS, "attention_mask": _MASK},
        task="text-classification",
    )


def _gpt2(name: str, width: int, layers: int) -> BenchmarkModel:
    return BenchmarkModel(
        name=name,
        source=_transformers(
            "gpt2:GPT2LMHeadModel",
            "GPT2Config",
            vocab_size=_VOCABULARY,
            n_positions=256,
            n_embd=width,
            n_layer=layers,
            n_head=4,
            initializer_range=0.1,
            use_cache=False,
            # The defaults are outside this vocabulary.
            bos_token_id=None,
            eos_token_id=None,
        ),
        dims=_TEXT_DIMS,
        inputs={"input_ids": _TOKENS, "attention_mask": _MASK},
        task="text-generation",
    )


def _vit(name: str, width: int, layers: int) -> BenchmarkModel:
    return BenchmarkModel(
        name=name,
        source=_transformers(
            "vit:ViTForImageClassification",
            "ViTConfig",
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=2 * width,
            image_size=IMAGE_SIZE,
            patch_size=16,
            initializer_range=0.1,
            num_labels=10,
        ),
        inputs={"pixel_values": _IMAGE},
        task="image-classification",
    )


MODELS = [
    BenchmarkModel(
        name="mlp", source={"_target_": "exporter.zoo.mlp.MLP"}, inputs={"tensor_x": {"shape": ["batch", 8]}}
    ),
    BenchmarkModel(name="mlp_wide", source=_perceptron(64, 256, 256, 10), inputs={"input": {"shape": ["batch", 64]}}),
    BenchmarkModel(name="mlp_deep", source=_perceptron(32, *[64] * 11, 10), inputs={"input": {"shape": ["batch", 32]}}),
    BenchmarkModel(
        name="two_tower",
        source={
            "_target_": "exporter.zoo.two_tower.TwoTower",
            "query_features": 24,
            "item_features": 40,
            "embedding_size": 16,
        },
        inputs={"query": {"shape": ["batch", 24]}, "item": {"shape": ["batch", 40]}},
    ),
    BenchmarkModel(
        name="gru",
        source={
            "_target_": "exporter.zoo.recurrent.SequenceTagger",
            "num_features": 8,
            "hidden_size": 32,
            "num_tags": 5,
        },
        dims=_TEXT_DIMS,
        inputs={"features": {"shape": ["batch", "seq", 8]}},
    ),
    BenchmarkModel(name="conv_small", source=_convolutions(3, 8, 16), inputs={"input": _IMAGE}),
    BenchmarkModel(name="conv_large", source=_convolutions(3, 16, 32, 64, 64), inputs={"input": _IMAGE}),
    BenchmarkModel(
        name="resnet",
        source=_transformers(
            "resnet:ResNetForImageClassification",
            "ResNetConfig",
            embedding_size=16,
            hidden_sizes=[32, 64],
            depths=[2, 2],
            num_labels=10,
        ),
        inputs={"pixel_values": _IMAGE},
    ),
    _bert("bert_tiny", 32, 2),
    _bert("bert_small", 128, 4),
    _distilbert("distilbert_tiny", 32, 2),
    _distilbert("distilbert_small", 128, 4),
    _gpt2("gpt2_tiny", 32, 2),
    _gpt2("gpt2_small", 128, 4),
    _vit("vit_tiny", 32, 2),
    _vit("vit_small", 128, 4),
]
