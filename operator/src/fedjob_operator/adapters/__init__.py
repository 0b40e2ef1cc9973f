"""The only I/O: HTTP to the programs, processes of this machine, the file of a local run."""
