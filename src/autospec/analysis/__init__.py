"""Comparing groups: tables of stored spectra in, tables out; no torch, no pictures."""
