"""A device plugin that advertises GPUs which are not there: its program, its image, and what puts it on a cluster."""
