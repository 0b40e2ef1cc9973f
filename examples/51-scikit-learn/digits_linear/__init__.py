"""A scikit-learn estimator as a client: see `client`."""
