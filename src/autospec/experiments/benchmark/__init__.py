"""What recording costs: the paper's networks trained in several ways side by side, and a table of it."""
