"""How fast the file is, and how large the model."""

import faulty_models
import torch
from torch import nn

from exporter.measure import count_parameters, measure_latency


def test_shared_parameters_count_once_and_buffers_not_at_all():
    assert count_parameters(nn.Linear(3, 2)) == 8
    assert count_parameters(faulty_models.Ties()) == 64
    assert count_parameters(nn.BatchNorm1d(4)) == 8


def test_the_latency_is_that_of_a_call(perceptron):
    latency = measure_latency(perceptron.directory.model, {"x": torch.zeros(4, 8)}, 1)
    assert 1e-7 < latency < 10
