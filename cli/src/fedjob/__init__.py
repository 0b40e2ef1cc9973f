"""The command line of FederatedJob."""
