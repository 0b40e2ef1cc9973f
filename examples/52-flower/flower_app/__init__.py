"""A Flower app: see `client_app`."""
