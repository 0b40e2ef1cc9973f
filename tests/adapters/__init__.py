"""Beside libraries that the programs do not need: PyTorch and Flower, in an environment of their own."""
