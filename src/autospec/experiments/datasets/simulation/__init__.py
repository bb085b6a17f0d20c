"""Simulated subjects, and what a scanner would have seen of them."""
