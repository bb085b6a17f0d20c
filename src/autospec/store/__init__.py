"""Writing and reading ``spectra.h5``: h5py and NumPy, no torch."""
