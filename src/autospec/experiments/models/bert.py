"""BERT: Hugging Face's ``BertModel`` with ``depth`` encoder layers, on a time series' steps as its tokens."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from autospec.experiments.config.schema import Activation, ExperimentConfig
from autospec.experiments.models.shape import DataShape

MOST_HEADS = 4
WIDENING = 4
"""Units of a feed-forward block for each of the ``width``."""


class Bert(nn.Module):
    """A linear map of the channels to embeddings, the encoder, and a linear head.

    An autoencoder's head reads every token, a classifier's the pooled output, which the autoencoder's encoder does
    not have.
    """

    def __init__(self, shape: DataShape, width: int, depth: int, activation: Activation) -> None:
        super().__init__()
        self.embedding = nn.Linear(shape.channels, width)
        self.bert = _encoder(shape, width, depth, activation)
        self.head = nn.Linear(width, shape.classes or shape.channels)
        self._pooled = shape.classes is not None

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, time, channels) → (n, classes), or the shape of the input."""
        # positions are given for every sample, so that each has its own rows at the position embedding
        positions = torch.arange(inputs.shape[1], device=inputs.device).expand(inputs.shape[:2])
        encoded = self.bert(inputs_embeds=self.embedding(inputs), position_ids=positions)
        return self.head(encoded.pooler_output if self._pooled else encoded.last_hidden_state)


def build(config: ExperimentConfig, shape: DataShape) -> Bert:
    """Return the untrained transformer of a configuration.

    Args:
        config: its width, depth and activation.
        shape: of a sample, and the number of classes.
    """
    return Bert(shape, config.width, config.depth, config.activation)


def _encoder(shape: DataShape, width: int, depth: int, activation: Activation) -> Any:
    """A freshly initialised ``BertModel`` without dropout, nothing in it that is never used."""
    from transformers import BertConfig, BertModel  # takes seconds to import

    config = BertConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=math.gcd(width, MOST_HEADS),
        intermediate_size=WIDENING * width,
        hidden_act=activation.value,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=shape.inputs[0],
        vocab_size=1,
        type_vocab_size=1,
        attn_implementation="sdpa",
    )
    encoder = BertModel(config, add_pooling_layer=shape.classes is not None)
    # embeddings are given, so no word is looked up, and one token type would only repeat their bias
    encoder.embeddings.word_embeddings.requires_grad_(False)
    encoder.embeddings.token_type_embeddings.requires_grad_(False)
    return encoder
