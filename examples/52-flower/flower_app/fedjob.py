"""What makes the Flower client a client of a federated job."""

from fedjob_client.flower import flower_trainer
from flower_app.client_app import client_fn

FlowerApp = flower_trainer(client_fn)
