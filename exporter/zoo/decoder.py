"""A causal language model as it is served: one step of generation, with the keys and values of the past.

transformers keeps them in a cache object; a graph takes and gives tensors. This wrapper puts the tensors into a cache
and takes the grown ones out again.
"""

import torch
from torch import nn
from transformers.cache_utils import DynamicCache

__all__ = ["CachedDecoder"]


class CachedDecoder(nn.Module):
    """Any decoder of transformers that takes `past_key_values`.

    Args:
        decoder: Such as `GPT2LMHeadModel` or `LlamaForCausalLM`.
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        past_key_values: list[tuple[torch.Tensor, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        """Logits of the new tokens, and the cache with them in it.

        Args:
            input_ids: int64[batch, seq], the new tokens.
            attention_mask: int64[batch, past + seq].
            past_key_values: For each layer the keys and the values, float32[batch, heads, past, head size] each.
        """
        cache = DynamicCache(past_key_values)
        outputs = self.decoder(input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache)
        grown = {"logits": outputs.logits}
        for index, layer in enumerate(outputs.past_key_values.layers):
            grown[f"present_key_{index}"] = layer.keys
            grown[f"present_value_{index}"] = layer.values
        return grown
