"""The client of a FederatedJob: a `fedjob_client.trainer.Trainer` behind HTTP.

Nothing is imported here: ``command`` has to set the number of threads before NumPy is.
"""
