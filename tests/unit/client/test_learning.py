from fedjob_client.trainer import OptimizerSettings
from tests.unit.client.federation import accuracies


def test_the_digits_are_learned_in_twenty_federated_rounds():
    found = accuracies(
        model="mlp",
        data="digits",
        seed=1,
        rounds=20,
        epochs=5,
        batch_size=32,
        learning_rate=0.05,
        optimizer=OptimizerSettings(parameters={"momentum": 0.9}),
    )
    assert found[-1] >= 0.94
