"""A simulated world: operator, aggregator and clients with their real machines, without I/O and without real time."""
