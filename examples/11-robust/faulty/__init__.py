"""A trainer of one's own: see `client`."""
