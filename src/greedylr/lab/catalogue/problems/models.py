"""Models that more than one problem is about; written so that ``torch.func.vmap`` can stack them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Self-attention with several heads.

    Spelled out, because vmap has no rule for ``scaled_dot_product_attention`` on a CPU.

    Args:
        width: Size of a token; a multiple of ``heads``.
        heads: Number of heads.
        causal: Whether a token attends to none after it.
    """

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.inward = nn.Linear(width, 3 * width)
        self.outward = nn.Linear(width, width)
        self.heads, self.causal = heads, causal

    def forward(self, tokens: Tensor) -> Tensor:
        # (batch, tokens, width) to three of (batch, heads, tokens, width of a head).
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(-3, -2) for part in self.inward(tokens).chunk(3, dim=-1)
        )
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        if self.causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        mixed = scores.softmax(-1) @ value
        result: Tensor = self.outward(mixed.transpose(-3, -2).flatten(-2))
        return result


class Block(nn.Module):
    """Attention and a two-layer perceptron, each normalised before and added to what came in."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), Attention(width, heads, causal))
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(tokens)
        result: Tensor = tokens + self.perceptron(tokens)
        return result


class Transformer(nn.Module):
    """Tokens with learned positions, blocks, and a linear head.

    Args:
        embedding: Makes tokens of the inputs, (batch, length, width).
        length: Number of tokens.
        width: Size of a token.
        heads: Heads of each block's attention.
        depth: Number of blocks.
        outputs: Number of outputs.
        each: Whether there are outputs for each token, made from it and those before; else they are made
            from the mean of all.
    """

    def __init__(
        self, embedding: nn.Module, *, length: int, width: int, heads: int, depth: int, outputs: int, each: bool
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.positions = nn.Parameter(torch.empty(length, width))
        self.blocks = nn.Sequential(*(Block(width, heads, causal=each) for _ in range(depth)), nn.LayerNorm(width))
        self.head = nn.Linear(width, outputs)
        self.each = each
        nn.init.normal_(self.positions, std=0.02)
        if isinstance(embedding, nn.Embedding):
            nn.init.normal_(
                embedding.weight, std=0.02
            )  # torch's own, of variance 1, takes hundreds of steps to unlearn.

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.blocks(self.embedding(inputs) + self.positions)
        logits: Tensor = self.head(hidden if self.each else hidden.mean(-2))
        return logits


class GRU(nn.Module):
    """Gated recurrent units that read a sequence of symbols, with outputs after each.

    The loop over the sequence is written out, because vmap has no rule for ``nn.GRU``.

    Args:
        symbols: Number of symbols; the outputs are as many logits.
        width: Size of an embedded symbol and of the state.
    """

    def __init__(self, symbols: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, width)
        self.of_input = nn.Linear(width, 3 * width)
        self.of_state = nn.Linear(width, 3 * width)
        self.head = nn.Linear(width, symbols)

    def forward(self, inputs: Tensor) -> Tensor:
        given = self.of_input(self.embedding(inputs))
        state = torch.zeros_like(given[..., 0, : given.shape[-1] // 3])
        states = []
        for now in given.unbind(-2):
            reset, update, new = now.chunk(3, dim=-1)
            reset_state, update_state, new_state = self.of_state(state).chunk(3, dim=-1)
            keep = torch.sigmoid(update + update_state)
            candidate = torch.tanh(new + torch.sigmoid(reset + reset_state) * new_state)
            state = candidate + keep * (state - candidate)
            states.append(state)
        logits: Tensor = self.head(torch.stack(states, dim=-2))
        return logits


class Residual(nn.Module):
    """Layers whose result is added to what came in."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = inputs + self.layers(inputs)
        return result


class Experts(nn.Module):
    """A layer of two-layer perceptrons of which each input gets one, chosen and weighted by a gate.

    All are computed and all but the gate's choice multiplied by zero: nothing depends on the data but the numbers.

    Args:
        count: Number of experts.
        width: Size of inputs and outputs.
        hidden: Size of an expert's hidden layer.
    """

    def __init__(self, count: int, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, count)
        self.inward = nn.Linear(width, count * hidden)
        self.outward = nn.Parameter(torch.empty(count, hidden, width))
        nn.init.normal_(self.outward, std=hidden**-0.5)

    def weights(self, inputs: Tensor) -> Tensor:
        """The weight of each expert for each input, zero but for one."""
        gates = self.gate(inputs).softmax(-1)
        return torch.where(gates == gates.amax(-1, keepdim=True), gates, 0.0)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden: Tensor = torch.relu(self.inward(inputs))
        weights = self.weights(inputs).repeat_interleave(self.outward.shape[1], -1)
        return (weights * hidden) @ self.outward.flatten(0, 1)


class LowRank(nn.Module):
    """A linear layer that stays as it is, and an adapter of low rank beside it, which is trained.

    Args:
        layer: The linear layer.
        rank: Rank of the adapter, whose second factor begins with zeros.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.register_buffer("weight", layer.weight.detach())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())
        self.down = nn.Parameter(torch.randn(rank, layer.in_features) * layer.in_features**-0.5)
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, inputs: Tensor) -> Tensor:
        fixed = nn.functional.linear(inputs, self.weight, self.bias)
        return fixed + inputs @ self.down.T @ self.up.T

    @classmethod
    def of(cls, model: nn.Module, rank: int) -> nn.Module:
        """``model``, changed in place: adapters at all linear layers, and everything else held fixed."""
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(module, name, cls(child, rank))
        for module in list(model.modules()):
            if not isinstance(module, cls):
                for name, parameter in list(module.named_parameters(recurse=False)):
                    delattr(module, name)
                    module.register_buffer(name, parameter.detach())
        return model
