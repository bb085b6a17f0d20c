"""A plain loop on scikit-learn's digits: how a perceptron learns even and odd ones.

python examples/digits.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import autospec

images, digits = load_digits(return_X_y=True)
x = torch.tensor(images / 16, dtype=torch.float32)
y = torch.tensor(digits)

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

with autospec.SpectralRecorder(model, "digits.h5", groups=["even", "odd"], overwrite=True) as recorder:
    for _ in range(30):
        order = torch.randperm(len(x))
        for chosen in order.split(256):
            with recorder.batch(y[chosen] % 2):
                loss = nn.functional.cross_entropy(model(x[chosen]), y[chosen])
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        recorder.end_epoch(loss=loss.item())

spectra = autospec.open_spectra("digits.h5")
print(spectra)
print(spectra.summary().to_string())
spectra.plot(path="digits.png")
