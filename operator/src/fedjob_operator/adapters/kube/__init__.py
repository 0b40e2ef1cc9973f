"""The API server: the only package that talks to it, besides the watches of `fedjob_operator.handlers`."""
