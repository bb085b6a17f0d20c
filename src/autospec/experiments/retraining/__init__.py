"""Training anew with permuted labels: the test of groups that a classifier learns to tell apart."""
