"""Server optimizers against their papers, written down here once more in plain NumPy; and their state on disk."""

import asyncio
import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from fedjob_aggregator.aggregation.accumulator import BLOCK_ELEMENTS
from fedjob_aggregator.checkpoints import CheckpointStore
from fedjob_aggregator.folder_manifest import FolderError
from fedjob_aggregator.replica_store import open_replica
from fedjob_protocol.reasons import Reason
from fedjob_protocol.weights import decode, encode
from tests.unit.aggregator.harness import running

ROUNDS = 5
MODEL = {
    "a": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
    "b": np.array([0.5, -0.25]),
    "c": np.float32(3.0).reshape(()),
}
EXAMPLES = (10, 30, 5)
STRATEGIES = {
    "FedAvg": {},
    "FedProx": {"mu": 0.1},
    "FedAvgM": {"serverLearningRate": 0.7, "momentum": 0.8},
    "FedAdam": {"serverLearningRate": 0.05, "beta1": 0.9, "beta2": 0.95, "tau": 0.01},
    "FedYogi": {"serverLearningRate": 0.05, "beta1": 0.8, "beta2": 0.9, "tau": 0.01},
    "FedAdagrad": {"serverLearningRate": 0.1, "beta1": 0.3, "tau": 0.01},
}


def deltas(round_number, model=MODEL):
    """The updates of three clients in a round."""
    source = np.random.default_rng(round_number)
    return [
        {name: source.normal(0.02, 0.1, value.shape).astype(np.float32) for name, value in model.items()}
        for _ in EXAMPLES
    ]


def reference(name, given, model, rounds):
    """The final model by the papers: Reddi et al. 2021, Algorithm 2; Hsu et al. 2019, FedAvgM."""
    x = {key: np.asarray(value, np.float64) for key, value in model.items()}
    m = {key: np.zeros_like(value) for key, value in x.items()}
    v = {key: np.full_like(value, given.get("tau", 0) ** 2) for key, value in x.items()}
    for t in range(1, rounds + 1):
        updates = deltas(t, model)
        for key in model:
            weighted = sum(n * update[key].astype(np.float64) for n, update in zip(EXAMPLES, updates, strict=True))
            delta = weighted / sum(EXAMPLES)
            if name in ("FedAvg", "FedProx"):
                x[key] = x[key] + delta
                continue
            eta = given["serverLearningRate"]
            if name == "FedAvgM":
                m[key] = given["momentum"] * m[key] + delta
                x[key] = x[key] + eta * m[key]
                continue
            m[key] = given["beta1"] * m[key] + (1 - given["beta1"]) * delta
            if name == "FedAdagrad":
                v[key] = v[key] + delta**2
            elif name == "FedYogi":
                v[key] = v[key] - (1 - given["beta2"]) * delta**2 * np.sign(v[key] - delta**2)
            else:
                v[key] = given["beta2"] * v[key] + (1 - given["beta2"]) * delta**2
            x[key] = x[key] + eta * m[key] / (np.sqrt(v[key]) + given["tau"])
    return x


async def do_round(api, number, strategy, *, order=(0, 1, 2), updates=None, **changes):
    """Open a round, upload, and return its record."""
    status, answer, _ = await api.open(number, strategy=strategy, **changes)
    assert status == 200, answer
    updates = deltas(number) if updates is None else updates
    for client in order:
        status, answer, _ = await api.upload(
            number, client, encode(updates[client]), examples=EXAMPLES[client], attempt=changes.get("attempt", 1)
        )
        assert status == 200, answer
    return (await api.wait(number))["record"]


def train(folder, strategy, rounds, *, first=1, boot_id="boot", order=(0, 1, 2)):
    """Run an aggregator for some rounds; return their records and the model."""

    async def go():
        async with running(folder, boot_id=boot_id) as api:
            if first == 1:
                await api.initialise(MODEL)
            records = [await do_round(api, number, strategy, order=order) for number in range(first, rounds + 1)]
            arrays, _ = decode(await api.get("/v1/models/latest"))
            return records, {name: array.copy() for name, array in arrays.items()}

    return asyncio.run(go())


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_model_is_that_of_the_paper(name, tmp_path):
    records, model = train(tmp_path, {"name": name, "parameters": STRATEGIES[name]}, ROUNDS)
    expected = reference(name, STRATEGIES[name], MODEL, ROUNDS)
    for key, value in expected.items():
        assert model[key].dtype == MODEL[key].dtype
        assert model[key] == pytest.approx(value, abs=1e-5)
    assert len({record["digest"] for record in records}) == ROUNDS


@pytest.mark.parametrize("name", ["FedAvgM", "FedAdam", "FedYogi", "FedAdagrad"])
def test_after_a_restart_the_optimizer_goes_on_where_it_was_in_any_order_of_arrival(name, tmp_path):
    strategy = {"name": name, "parameters": STRATEGIES[name]}
    calm, _ = train(tmp_path / "calm", strategy, ROUNDS)
    train(tmp_path / "stopped", strategy, 2, order=(2, 0, 1))
    again, _ = train(tmp_path / "stopped", strategy, ROUNDS, first=3, boot_id="another", order=(1, 2, 0))
    assert [record["digest"] for record in again] == [record["digest"] for record in calm[2:]]


def test_the_state_is_a_file_whose_digest_the_checkpoint_holds(tmp_path):
    train(tmp_path, {"name": "FedAdam"}, 3)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [
        "round-000002.safetensors",
        "round-000002.state.safetensors",
        "round-000003.safetensors",
        "round-000003.state.safetensors",
    ]
    state = safetensors.numpy.load_file(tmp_path / "checkpoints/round-000003.state.safetensors")
    assert {name: array.shape for name, array in state.items()} == {"momentum": (9,), "squares": (9,)}
    _, metadata = decode((tmp_path / "checkpoints/round-000003.safetensors").read_bytes())
    content = (tmp_path / "checkpoints/round-000003.state.safetensors").read_bytes()
    assert metadata["fedjob.stateBytes"] == str(len(content))


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_state_that_is_damaged_is_never_used(damage, tmp_path):
    train(tmp_path, {"name": "FedAdam"}, 2)
    file = tmp_path / "checkpoints/round-000002.state.safetensors"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(FolderError, match="strategy's state") as caught:
        CheckpointStore(tmp_path)
    assert caught.value.reason is Reason.CHECKPOINT_LOST


def test_a_damaged_state_of_the_model_before_lets_go_of_that_model_alone(tmp_path):
    train(tmp_path, {"name": "FedAdam"}, 2)
    (tmp_path / "checkpoints/round-000001.state.safetensors").unlink()
    store = CheckpointStore(tmp_path)
    assert (store.find("1"), store.find("2").round) == (None, 2)
    store.close()


def test_the_best_model_keeps_its_state(tmp_path):
    async def go():
        async with running(tmp_path) as api:
            await api.initialise(MODEL)
            for number in range(1, 5):
                record = await do_round(api, number, {"name": "FedAdam"}, expectsEvaluation=True)
                body = {"jobUid": "job-uid", "term": 1, "digest": record["digest"], "best": number == 1}
                status, answer, _ = await api.call("PUT", f"/v1/rounds/{number}/evaluation", json=body)
                assert status == 200, answer

    asyncio.run(go())
    store = CheckpointStore(tmp_path)
    info = store.find("best")
    assert info.round == 1
    assert store.state_of(info).round == 1
    with store.open_state(1) as file:
        assert file.read()
    store.close()


def test_a_round_that_starts_from_the_best_model_starts_from_its_state(tmp_path, monkeypatch):
    """Whoever lets a round have another base than the newest model: what the strategy remembered then goes with it."""
    given = STRATEGIES["FedAdam"]
    monkeypatch.setattr("fedjob_aggregator.machine.check_base", lambda *_: None)

    async def go():
        async with running(tmp_path) as api:
            await api.initialise(MODEL)
            bases = [None]
            for number in range(1, 5):
                base = bases[1] if number == 4 else await api.base()
                record = await do_round(
                    api,
                    number,
                    {"name": "FedAdam", "parameters": given},
                    updates=deltas(2 if number == 4 else number),
                    expectsEvaluation=True,
                    base=base,
                )
                bases.append({"round": number, "digest": record["digest"]})
                body = {"jobUid": "job-uid", "term": 1, "digest": record["digest"], "best": number == 1}
                await api.call("PUT", f"/v1/rounds/{number}/evaluation", json=body)
            return decode(await api.get("/v1/models/4"))

    model, metadata = asyncio.run(go())
    for key, value in reference("FedAdam", given, MODEL, 2).items():
        assert model[key] == pytest.approx(value, abs=1e-5)
    assert metadata["fedjob.round"] == "4"


def test_a_standby_copies_the_state_and_leads_on_from_it(tmp_path):
    strategy = {"name": "FedYogi", "parameters": STRATEGIES["FedYogi"]}
    calm, _ = train(tmp_path / "calm", strategy, 4)
    train(tmp_path / "leader", strategy, 3)
    store = open_replica(tmp_path / "leader", None, job_uid=None)
    standby = open_replica(tmp_path / "standby", None, job_uid="job-uid")
    info, state = store.find("latest"), store.state_of(store.find("latest"))
    with store.open(info) as file, store.open_state(3) as remembered:
        standby.claim("job-uid", 1)
        standby.extend(store.log.record(number) for number in range(3))
        standby.copy(3, [memoryview(file.read())])
        assert standby.state_of(info) == state
        standby.copy_state(3, [memoryview(remembered.read())])
    standby.install(info, store.record, stamp=1)
    store.close()
    standby.close()
    records, _ = train(tmp_path / "standby", strategy, 4, first=4)
    assert records[0]["digest"] == calm[3]["digest"]


def test_large_models_are_worked_on_block_by_block_with_the_same_result(tmp_path):
    size = 2 * BLOCK_ELEMENTS + 17
    model = {"w": np.zeros(size, np.float32), "x": np.zeros(3)}
    given = STRATEGIES["FedAdam"]

    async def go():
        async with running(tmp_path) as api:
            await api.initialise(model)
            for number in (1, 2):
                await do_round(api, number, {"name": "FedAdam", "parameters": given}, updates=deltas(number, model))
            return decode(await api.get("/v1/models/latest"))[0]

    arrays = asyncio.run(go())
    expected = reference("FedAdam", given, model, 2)
    assert np.abs(arrays["w"] - expected["w"]).max() < 1e-5
    assert np.abs(arrays["x"] - expected["x"]).max() < 1e-9


@pytest.mark.parametrize(
    ("strategy", "told"),
    [
        ({"name": "FedAdm"}, "strategy 'FedAdm' is not known here"),
        ({"name": "FedAvg", "parameters": {"tau": 1}}, "tau: is no parameter of strategy FedAvg; it has clipNorm"),
        (
            {"name": "FedAdam", "parameters": {"beta1": 1}},
            "beta1: 1 is not in range: must be a number, at least 0 and less than 1",
        ),
        ({"name": "FedAdam", "parameters": {"tau": 0}}, "tau: 0 is not in range: must be a number, more than 0"),
        ({"name": "FedAdam", "parameters": {"tau": True}}, "tau: True is not in range"),
        ({"name": "FedProx"}, "mu: missing; strategy FedProx needs it"),
        ({"name": "Krum", "parameters": {"byzantine": 1}}, "needs at least 5 updates, minReports is 1"),
        ({"name": "MultiKrum", "parameters": {"byzantine": 0.5}}, "must be a whole number"),
    ],
)
def test_what_a_strategy_cannot_be_is_refused_when_the_round_is_opened(strategy, told, tmp_path):
    async def go():
        async with running(tmp_path) as api:
            await api.initialise(MODEL)
            return await api.open(1, strategy=strategy)

    status, answer, _ = asyncio.run(go())
    assert (status, answer["word"]) == (422, "bad-request")
    assert told in answer["detail"]


def test_an_attempt_that_was_killed_after_its_state_was_written_leaves_nothing(tmp_path):
    """A state without its checkpoint does not count, and is gone after the start."""
    train(tmp_path, {"name": "FedAdam"}, 2)
    checkpoints = tmp_path / "checkpoints"
    shutil.copy(checkpoints / "round-000002.state.safetensors", checkpoints / "round-000003.state.safetensors")
    (checkpoints / "round-000003.state.safetensors.tmp").write_bytes(b"half")
    store = CheckpointStore(tmp_path)
    store.close()
    assert not list(checkpoints.glob("round-000003*"))
    assert json.loads((tmp_path / "manifest.json").read_bytes())["committed"]["round"] == 2
