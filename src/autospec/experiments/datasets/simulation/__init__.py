"""Simulated people, and what a scanner would have seen of them."""
