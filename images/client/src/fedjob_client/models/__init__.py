"""The built-in models: what a manifest can name as ``model.name``, with gradients written out."""
