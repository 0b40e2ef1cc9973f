"""A small convolutional network as a client of a federated job."""

from torch import nn

from fedjob_client.torch import TorchTrainer


class DigitsNet(TorchTrainer):
    """Reads digits of 8 x 8 pixels."""

    def make_model(self) -> nn.Module:
        """Make the network; its values are drawn under the job's seed."""
        convolution = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2))
        return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), convolution, nn.Flatten(), nn.Linear(256, 10))
