"""A BERT of Hugging Face that tells documentation from code, line by line; its groups are long and short lines.

python examples/text_classifier.py
"""

import torch
from sources_of_text import read
from transformers import BertConfig, BertForSequenceClassification

import autospec

LENGTH = 24

lines = [(line.strip(), label) for label, text in enumerate(read(60_000)) for line in text.splitlines()]
lines = [(line, label) for line, label in lines if len(line) >= 8][:1200]
tokens = torch.zeros(len(lines), LENGTH, dtype=torch.long)
for row, (line, _) in enumerate(lines):
    tokens[row, : len(line[:LENGTH])] = torch.tensor([ord(letter) for letter in line[:LENGTH]])
labels = torch.tensor([label for _, label in lines])
is_long = torch.tensor([len(line) > LENGTH for line, _ in lines]).long()

torch.manual_seed(0)
config = BertConfig(
    vocab_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
    max_position_embeddings=LENGTH, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip
model = BertForSequenceClassification(config)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

groups = ["short lines", "long lines"]
with autospec.SpectralRecorder(
    model, "text.h5", groups=groups, layers=["*query", "*dense*"], overwrite=True
) as recorder:
    for _ in range(3):
        for chosen in torch.randperm(len(tokens)).split(64):
            with recorder.batch(is_long[chosen]):
                output = model(
                    input_ids=tokens[chosen], attention_mask=(tokens[chosen] > 0).long(), labels=labels[chosen]
                )
                output.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        recorder.end_epoch(loss=output.loss.item())

print(autospec.open_spectra("text.h5").summary().to_string())
