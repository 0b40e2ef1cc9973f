"""A PyTorch module as a client: see `client`."""
