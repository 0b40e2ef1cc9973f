"""A device plugin in the kubelet's own protocol, for GPUs that are not there: `python -m fake_gpus`."""
