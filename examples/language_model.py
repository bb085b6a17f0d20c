"""A small language model whose groups are sources of text: one loss at two batch sizes, and other spectra.

python examples/language_model.py
"""

import torch
from sources_of_text import SOURCES, read
from torch import nn

import autospec

CONTEXT, WIDTH, LOSS = 32, 64, 2.45

texts = [torch.tensor([ord(letter) for letter in text]) for text in read(200_000)]


class LanguageModel(nn.Module):
    """A causal transformer over characters: two blocks, four heads."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(128, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        block = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 128)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(n, context) → (n, context, 128)."""
        places = torch.arange(CONTEXT).expand(tokens.shape)  # rows of their own for every sample
        mask = nn.Transformer.generate_square_subsequent_mask(CONTEXT)
        return self.head(self.blocks(self.token(tokens) + self.position(places), mask, is_causal=True))


def train(batch: int, rate: float) -> tuple[int, float]:
    """Train until the running loss is ``LOSS``; the number of steps, and the loss there."""
    torch.manual_seed(0)
    model = LanguageModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    running, step = 5.0, 0
    recorder = autospec.SpectralRecorder(
        model, f"batch_{batch}.h5", groups=SOURCES, layers=["head", "blocks*linear1"], every=10, overwrite=True
    )
    with recorder:
        while running > LOSS:
            source = torch.arange(batch) % len(SOURCES)
            starts = torch.randint(len(texts[0]) - CONTEXT - 1, (batch,))
            windows = torch.stack(
                [texts[s][i : i + CONTEXT + 1] for s, i in zip(source.tolist(), starts.tolist(), strict=True)]
            )
            with recorder.batch(source):
                logits = model(windows[:, :-1])
                loss = nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            running, step = 0.95 * running + 0.05 * loss.item(), step + 1
            recorder.record(step, loss=running)
    return step, running


for batch in (8, 32):
    steps, loss = train(batch, rate=2e-3)
    spectra = autospec.open_spectra(f"batch_{batch}.h5")
    head = spectra.scaled("head")
    last = head.isel(epoch=-1).sel(index=1)
    values = ", ".join(f"{name} {float(last.sel(group=name)):.3f}" for name in ["all", *SOURCES])
    print(
        f"batch {batch}: loss {loss:.2f} after {steps} steps; largest singular value of the head's gradient: {values}"
    )
