"""Built-in regressions on a GPU: kernels by Numba, the data resident on the device.

`choice` decides whether a client computes here and says why not; `driver` asks the machine, `plan` divides the work,
`kernels` and `links` do it, `buffers` and `gradient` hold data and results, `faults` names what goes wrong. Only
`kernels`, `links` and what imports them import ``numba.cuda``, so nothing of it is loaded where no GPU is.
"""
