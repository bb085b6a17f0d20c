"""An EEG network of braindecode, BatchNorm and all, by fused products. The signals are SIMULATED here.

pip install braindecode && python examples/eeg.py
"""

import torch
from braindecode.models import EEGNet
from torch import nn

import autospec

SUBJECTS, TRIALS, CHANNELS, TIMES = 8, 24, 8, 128

torch.manual_seed(0)
label = torch.arange(SUBJECTS * TRIALS) % 2
is_patient = (torch.arange(SUBJECTS * TRIALS) // TRIALS) % 2
phase = torch.linspace(0, 12, TIMES)
signals = torch.randn(SUBJECTS * TRIALS, CHANNELS, TIMES)
signals[:, 0] += (1 + label[:, None]) * torch.sin(phase * (1 + 0.5 * is_patient[:, None]))

model = EEGNet(n_chans=CHANNELS, n_outputs=2, n_times=TIMES, drop_prob=0.0)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
loss_fn = nn.CrossEntropyLoss()

with autospec.SpectralRecorder(model, "eeg.h5", groups=["HC", "SZ"], overwrite=True) as recorder:
    for _ in range(5):
        for chosen in torch.randperm(len(signals)).split(48):
            with recorder.batch(is_patient[chosen]):
                loss = loss_fn(model(signals[chosen]), label[chosen])
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        recorder.end_epoch(loss=loss.item())

print(autospec.open_spectra("eeg.h5").summary().to_string())
