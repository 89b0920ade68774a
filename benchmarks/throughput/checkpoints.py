"""Writes the benchmark's transformers as folders, for command lines that take nothing else.

`python -m benchmarks.throughput.checkpoints OUT_DIR NAME [NAME ...]`: for each model OUT_DIR/NAME with config.json and
model.safetensors, and, as these command lines look for one, a tokenizer or an image processor; all made here, offline.
"""

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, ViTImageProcessor

from benchmarks.throughput.bare import build
from benchmarks.throughput.models import IMAGE_SIZE, choose_models


def main() -> None:
    """Write what the command line names."""
    for model in choose_models(sys.argv[2:]):
        folder = Path(sys.argv[1]) / model.name
        torch.manual_seed(0)
        build(model.source).save_pretrained(folder)
        if "pixel_values" in model.inputs:
            ViTImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}).save_pretrained(folder)
        else:
            make_tokenizer().save_pretrained(folder)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Words of one letter; nothing of it reaches a graph."""
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    vocabulary = {word: place for place, word in enumerate([*special.values(), *"abcdefghijklmnopqrstuvwxyz"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106  (no password)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


if __name__ == "__main__":
    main()
