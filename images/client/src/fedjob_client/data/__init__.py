"""The data sets that a manifest can name, and how one is divided among clients."""
