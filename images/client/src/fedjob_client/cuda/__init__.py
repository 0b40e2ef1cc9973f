"""Built-in models on a GPU: regressions by Numba kernels of ours, networks by PyTorch; the data resident on the device.

`choice` decides whether a client computes here and says why not; `driver` asks the machine, `faults` names what goes
wrong. For regressions `plan` divides the work, `kernels` and `links` do it, `buffers` and `gradient` hold data and
results, `training` trains; `networks` does all of it for networks. Only `kernels`, `links` and what imports them import
``numba.cuda``, and only `networks` imports PyTorch, so nothing of either is loaded where no GPU is.
"""
