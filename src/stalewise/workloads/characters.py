"""``char-transformer``: a small decoder that learns the next character of a text."""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from stalewise import checks
from stalewise.errors import InputError
from stalewise.workloads.task import Task

HELD_OUT = 0.1  # of the text, its end
MOST_CHARACTERS = 50_000_000


def char_transformer(
    data: str | None = None, context: int = 32, width: int = 32, layers: int = 2, heads: int = 4
) -> Task:
    """A causal transformer with learned positions, pre-normalisation and tied embeddings; cross-entropy in nats.

    Args:
        data: A text file; Python's own help topics (``pydoc_data``, 0.5 to 0.7 million characters) unless given.
        context: Characters seen.
        width: Of the embedding.
        layers: Blocks of attention and a two-layer network.
        heads: Of attention; they divide the width.

    Raises:
        InputError: The text is missing, too short or too long; heads do not divide the width; an option is no such
            number.
    """
    for name, value in (("context", context), ("width", width), ("layers", layers), ("heads", heads)):
        checks.at_least(f"workload.options: {name}", value, 0 if name == "layers" else 1)
    if width % heads:
        raise InputError(f"workload.options: heads must divide width, got heads = {heads} and width = {width}")
    text = _text(data)
    if not 20 * (context + 1) <= len(text) <= MOST_CHARACTERS:
        allowed = f"{20 * (context + 1):,} to {MOST_CHARACTERS:,}"
        raise InputError(f"workload.data: the text must have {allowed} characters, got {len(text):,}")
    letters = sorted(set(text))
    place = {letter: at for at, letter in enumerate(letters)}
    codes = torch.tensor([place[letter] for letter in text])
    cut = int(len(codes) * (1.0 - HELD_OUT))
    model = Decoder(len(letters), context, width, layers, heads)
    stretches = codes[:cut].unfold(0, context + 1, 1), codes[cut:].unfold(0, context + 1, 1)
    return Task(model, next_character, *stretches)


class Decoder(nn.Module):
    """Characters to scores of the next, shape (samples, context) to (samples, context, letters)."""

    def __init__(self, letters: int, context: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.letter = nn.Embedding(letters, width)
        self.position = nn.Parameter(0.02 * torch.randn(context, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.last = nn.LayerNorm(width)
        nn.init.normal_(self.letter.weight, std=0.02)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Scores before the softmax."""
        x = self.letter(codes) + self.position[: codes.shape[-1]]
        for block in self.blocks:
            x = block(x)
        return self.last(x) @ self.letter.weight.T


class Block(nn.Module):
    """Causal attention, then a network of two layers, each on what is normalised and added to what was there.

    Attention is written out: PyTorch's fused form has no second derivative on CPUs.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.think = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (samples, context, width), as it came."""
        *samples, context, width = x.shape
        parts = self.attend(self.before(x)).reshape(*samples, context, 3, self.heads, width // self.heads)
        query, key, value = (part.transpose(-2, -3) for part in parts.unbind(-3))
        scores = query @ key.transpose(-1, -2) / (width // self.heads) ** 0.5
        later = torch.ones(context, context, dtype=torch.bool, device=x.device).triu(1)
        mixed = scores.masked_fill(later, -torch.inf).softmax(-1) @ value
        x = x + self.join(mixed.transpose(-2, -3).reshape(*samples, context, width))
        return x + self.think(self.between(x))


def next_character(model: nn.Module, batch: tuple[torch.Tensor]) -> torch.Tensor:
    """Mean cross-entropy of the next character [nats]."""
    (codes,) = batch
    scores = model(codes[..., :-1])
    return functional.cross_entropy(scores.flatten(0, -2), codes[..., 1:].flatten())


def _text(data: str | None) -> str:
    if data is not None:
        try:
            return Path(data).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise InputError(f"workload.data: cannot read {data!r}: {error.strerror}") from None
    try:
        from pydoc_data.topics import topics  # noqa: PLC0415  (half a megabyte)
    except ModuleNotFoundError:
        raise InputError("workload.data is missing: this Python comes without pydoc_data; name a text file") from None
    return "\n".join(topics[name] for name in sorted(topics))
