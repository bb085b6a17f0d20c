"""A 3-D CNN on NIfTI maps in a folder with a table of subjects. The maps are SIMULATED here; put yours in their place.

python examples/brain_maps.py
"""

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import torch
from torch import nn

import autospec

folder = Path("simulated_maps")
folder.mkdir(exist_ok=True)
rng = np.random.default_rng(0)
subjects = pd.DataFrame({"id": [f"sub-{n:02d}" for n in range(40)], "diagnosis": ["HC", "SZ"] * 20})
for subject in subjects.itertuples():
    volume = rng.normal(size=(10, 12, 10)).astype(np.float32)
    volume[3:6, 4:8, 3:6] += 1.0 if subject.diagnosis == "SZ" else 0.0
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([6, 6, 6, 1])), folder / f"{subject.id}.nii.gz")

maps = [nibabel.load(folder / f"{name}.nii.gz").get_fdata(dtype=np.float32) for name in subjects["id"]]
x = torch.tensor(np.stack(maps))[:, None]
group = torch.tensor((subjects["diagnosis"] == "SZ").to_numpy()).long()

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv3d(1, 8, 3, stride=2, padding=1), nn.ReLU(),
    nn.ConvTranspose3d(8, 1, 3, stride=2, padding=1, output_padding=1),
)  # fmt: skip
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

# diagnosis takes no part in training an autoencoder, so that permuting it gives a valid test
recorder = autospec.SpectralRecorder(model, "maps.h5", groups=["HC", "SZ"], overwrite=True)
with recorder:
    for _ in range(20):
        with recorder.batch(group):
            loss = (model(x) - x).square().mean()
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        recorder.end_epoch(loss=loss.item())

spectra = autospec.open_spectra("maps.h5")
print(spectra.summary().to_string())
spectra.plot(path="maps.png")
