"""The FederatedJob resource as typed data; start reading at `fedjob_operator.api.v1alpha1`."""
