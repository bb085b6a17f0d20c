"""Taking activations and adjoints out of reverse-mode differentiation without disturbing it."""

import torch
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import register_pytree_node, tree_flatten


def _take_packed_sequences_apart() -> None:
    """Let torch's trees look into packed sequences, as those of its later versions do by themselves."""
    example = PackedSequence(torch.zeros(1, 1), torch.ones(1, dtype=torch.int64))
    if len(tree_flatten(example)[0]) == 1:
        register_pytree_node(
            PackedSequence, lambda packed: (list(packed), None), lambda parts, _: PackedSequence(*parts)
        )


_take_packed_sequences_apart()
