import asyncio
import json

import numpy as np
import pytest

from fedjob_client.data.dataset import Dataset
from fedjob_client.errors import DataError, SettingsError
from fedjob_client.model_cache import LoadedModel, read_model_file
from fedjob_client.models.builtin import BuiltinTrainer
from fedjob_client.models.linear import LinearRegression
from fedjob_client.models.softmax import SoftmaxRegression
from fedjob_client.service import Loaded, load_job
from fedjob_client.settings import THREAD_VARIABLES, Settings, prepare_environment, read_config, tell_identity
from fedjob_client.trainer import EvalConfig
from fedjob_client.training import Progress, config_digest, epoch_teller
from fedjob_client.transfer import epochs_header, metrics_header
from fedjob_client.worker import Worker
from fedjob_protocol.config import ClientConfig, Role
from fedjob_protocol.digests import sha256_of
from fedjob_protocol.routes import MAX_JSON_BODY_BYTES
from fedjob_protocol.tasks import InitTask, TrainTask
from fedjob_protocol.weights import encode
from tests.unit.client.asgi import serving
from tests.unit.client.builders import a_classification, a_context, a_regression


def a_config(**values) -> ClientConfig:
    plain = {
        "job_uid": "job-1",
        "job_name": "digits",
        "name": "clients-0",
        "model": {"name": "softmax"},
        "data": {"name": "digits"},
    }
    return ClientConfig.model_validate(plain | values)


def a_job(dataset: Dataset | None = None, *, model=None, role=Role.TRAINER, params=None) -> Loaded:
    dataset = dataset or a_classification()
    trainer = BuiltinTrainer(model or SoftmaxRegression(), dataset)
    params = params or {"w": np.eye(5, 3, dtype=np.float32), "b": np.zeros(3, dtype=np.float32)}
    return Loaded(
        config=a_config(role=role),
        context=a_context(role=role),
        trainer=trainer,
        model=LoadedModel(digest="sha256:aa", round=4, params=params),
    )


TOKEN = "geheim"
HEADERS = {"Fedjob_Token": TOKEN}


# Border


async def test_the_job_side_wants_the_token_and_the_rest_does_not():
    async with serving(Settings(token=TOKEN), a_job()) as call:
        for headers in ({}, {"Fedjob_Token": "x"}, {"Fedjob_Token": ""}):
            answer = await call("GET", "/v1/info", **headers)
            assert (answer.status, answer.json["word"]) == (401, "bad-token")
        assert (await call("GET", "/v1/info", **HEADERS)).status == 200
        assert (await call("GET", "/v1/nothing")).status == 401
        assert (await call("GET", "/health")).status == 200


async def test_every_answer_says_the_protocol():
    async with serving() as call:
        for method, path in (("GET", "/health"), ("GET", "/nothing"), ("POST", "/v1/info")):
            assert (await call(method, path)).headers["fedjob-protocol"] == "1"
        answer = await call("GET", "/v1/info", Fedjob_Protocol="99")
        assert (answer.status, answer.json["word"]) == (426, "unsupported-protocol")


async def test_a_body_that_is_too_large_is_not_read():
    async with serving() as call:
        announced = await call("POST", "/train", b"{}", length=1 << 30)
        streamed = await call("POST", "/train", b" " * (MAX_JSON_BODY_BYTES + 1))
    for answer in (announced, streamed):
        assert (answer.status, answer.json["word"]) == (413, "too-large")


async def test_without_a_job_there_are_no_tasks():
    async with serving(Settings(index=4)) as call:
        for method, path in (("GET", "/v1/rounds/1"), ("DELETE", "/v1/rounds/1")):
            assert (await call(method, path)).json["word"] == "wrong-job"
        info = (await call("GET", "/v1/info")).json
        assert (info["jobUid"], info["index"], info["name"]) == (None, 4, "client-4")


async def test_an_evaluator_does_not_train():
    task = {"jobUid": "job-1", "seed": 1, "destination": a_destination()}
    async with serving(Settings(), a_job(role=Role.EVALUATOR)) as call:
        answer = await call("POST", "/v1/init", json.dumps(task), content_type="application/json")
        assert (answer.status, answer.json["word"]) == (403, "forbidden")
        assert (await call("GET", "/v1/info")).json["examples"] is None


def test_an_evaluator_needs_held_out_examples_only(tmp_path):
    path = tmp_path / "held-out.npz"
    np.savez(path, x_test=np.eye(3, 4, dtype=np.float32), y_test=np.arange(3))
    config = a_config(
        role=Role.EVALUATOR,
        data={"name": "npz", "path": str(path), "parameters": {"classes": 3}},
        model={"name": "mlp"},
    )

    loaded = load_job(config)
    params = {
        "w1": np.zeros((4, 64), dtype=np.float32),
        "b1": np.zeros(64, dtype=np.float32),
        "w2": np.zeros((64, 3), dtype=np.float32),
        "b2": np.zeros(3, dtype=np.float32),
    }

    assert loaded.trainer.evaluate(params, EvalConfig(round=1))["accuracy"] == pytest.approx(1 / 3)


async def test_a_client_says_what_labels_it_has_only_where_one_data_set_is_divided():
    partition = {"scheme": "Shards", "index": 1, "count": 4}
    for data, is_told in (({"name": "digits", "partition": partition}, True), ({"name": "digits"}, False)):
        loaded = load_job(a_config(data=data))
        async with serving(Settings(), loaded) as call:
            info = (await call("GET", "/v1/info")).json
        if is_told:
            assert len(info["labels"]) == 10
            assert sum(info["labels"]) == info["examples"] == len(loaded.trainer.dataset.train)
            assert sum(count > 0 for count in info["labels"]) <= 4
        else:
            assert info["labels"] is None
    values = load_job(
        a_config(
            model={"name": "linear"},
            data={"name": "synthetic-linear", "partition": {"scheme": "IID", "index": 0, "count": 2}},
        )
    )
    async with serving(Settings(), values) as call:
        assert (await call("GET", "/v1/info")).json["labels"] is None


def a_destination():
    return {
        "term": 1,
        "attempt": 1,
        "bootId": "b",
        "uploadUrl": "http://127.0.0.1:1/up",
        "failureUrl": "http://127.0.0.1:1/fail",
        "deadlineSeconds": 1,
    }


# Predictions for a job


async def test_a_classifier_answers_classes_and_probabilities():
    async with serving(Settings(token=TOKEN), a_job()) as call:
        answer = await call("POST", "/predict", '{"inputs": [[5, 0, 0, 0, 0], [0, 0, 5, 0, 0]]}')
    assert answer.json["outputs"] == [0, 2]
    assert answer.json["round"] == 4
    assert np.sum(answer.json["probabilities"], axis=1) == pytest.approx([1, 1])


async def test_held_out_examples_come_with_their_labels_and_want_the_token():
    job = a_job()
    async with serving(Settings(token=TOKEN), job) as call:
        refused = await call("POST", "/predict", '{"samples": 3}')
        answer = await call("POST", "/predict", '{"samples": 3}', **HEADERS)
    assert refused.status == 401
    assert answer.json["labels"] == job.held_out().y[:3].tolist()
    assert all(isinstance(output, int) for output in answer.json["outputs"])


async def test_a_regression_answers_values():
    params = {"w": np.array([1.0, 2.0, 3.0]), "b": np.array([-2.0])}
    async with serving(Settings(), a_job(a_regression(), model=LinearRegression(), params=params)) as call:
        answer = await call("POST", "/predict", '{"inputs": [[1, 0, 0], [0, 1, 0]]}')
        assert answer.json == {"outputs": [-1.0, 0.0], "round": 4}
        answer = await call("POST", "/predict", '{"inputs": [1, 2]}')
        assert answer.status == 422
        assert answer.json["detail"] == "predict: the inputs have 1 features, the model has 3"


# Around the trainer


def test_a_job_is_loaded_from_its_settings(tmp_path):
    data = encode({"w": np.zeros((64, 10), dtype=np.float32), "b": np.zeros(10, dtype=np.float32)})
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    loaded = load_job(a_config(model_file=str(path), model_digest=sha256_of(data)))
    assert loaded.model is not None
    assert loaded.model.round is None
    assert loaded.trainer.num_examples == 1437  # type: ignore[attr-defined]


def test_a_server_reads_no_data_before_it_is_asked_for_some(tmp_path):
    data = encode({"w": np.zeros((64, 10), dtype=np.float32), "b": np.zeros(10, dtype=np.float32)})
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    config = a_config(role="Server", data={"name": "mnist", "path": "/nowhere"}, model_file=str(path))
    loaded = load_job(config)
    assert loaded.model is not None
    with pytest.raises(DataError, match="/nowhere"):
        loaded.held_out()


def test_a_server_without_a_model_says_what_it_needs():
    with pytest.raises(SettingsError, match="a server needs modelUrl and modelDigest, or modelFile"):
        load_job(a_config(role="Server"))


@pytest.mark.parametrize(
    ("content", "digest", "complaint"),
    [(None, None, "No such file"), (b"pickle", None, "safetensors"), (encode({}), f"sha256:{'0' * 64}", "is expected")],
)
def test_a_model_file_that_is_not_the_model_is_refused(tmp_path, content, digest, complaint):
    path = tmp_path / "m.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Exception, match=complaint):
        read_model_file(str(path), digest)


def test_the_identity_of_work_is_all_of_its_config_and_nothing_else():
    destination = a_destination()
    base = {"round": 1, "digest": f"sha256:{'0' * 64}"}

    def task(*, config, destination=destination, url="http://a/m"):
        return TrainTask.model_validate(
            {"jobUid": "j", "base": base, "config": config, "modelUrl": url, "destination": destination}
        )

    one = config_digest(task(config={"seed": 1}))
    assert one == config_digest(task(config={"seed": 1}, destination=destination | {"term": 9}, url="http://b/m"))
    assert one == config_digest(task(config={"seed": 1, "epochs": 1}))
    assert one != config_digest(task(config={"seed": 2}))
    assert one != config_digest(task(config={"seed": 1, "parameters": {"a": 1}}))
    assert one != config_digest(InitTask.model_validate({"jobUid": "j", "seed": 1, "destination": destination}))


def test_progress_keeps_finite_metrics_only():
    progress = Progress()
    progress.on_epoch(3, {"loss": 0.5, "auc": float("nan")})
    assert (progress.epoch, dict(progress.metrics)) == (3, {"loss": 0.5})


def test_progress_keeps_the_metrics_of_every_epoch_by_its_number():
    progress = Progress()
    for epoch in (1, 2):
        progress.on_epoch(epoch, {"accuracy": epoch / 4, "epoch": 9.0, "auc": float("inf")})
    assert list(progress.epochs) == [{"epoch": 1, "accuracy": 0.25}, {"epoch": 2, "accuracy": 0.5}]


@pytest.mark.parametrize(("count", "kept"), [(0, 0), (1, 1), (7, 7), (50, 50), (51, 50), (1000, 50)])
def test_of_many_epochs_some_are_told_evenly_and_always_the_first_and_the_last(count, kept):
    epochs = [{"epoch": number, "accuracy": 1 / number} for number in range(1, count + 1)]
    told = [entry["epoch"] for entry in json.loads(epochs_header(epochs))]
    assert len(told) == kept
    assert told == sorted(set(told))
    assert not told or (told[0], told[-1]) == (min(count, 1), count)


def test_metrics_of_epochs_fit_into_their_header():
    wide = [{"epoch": number} | {f"metric-{index:02}-{'x' * 50}": 0.5 for index in range(20)} for number in range(40)]
    header = epochs_header(wide)
    assert len(header) <= 4096
    assert [entry["epoch"] for entry in json.loads(header)] == [0, 39]


def test_lines_about_epochs_are_at_most_a_hundred(caplog):
    caplog.set_level("INFO")
    tell = epoch_teller(3, 1010)
    for epoch in range(1, 1011):
        tell(epoch, {"loss": 0.25, "accuracy": 0.5})
    assert len(caplog.messages) <= 100
    assert caplog.messages[-1] == "round 3: epoch 1010 of 1010: accuracy 0.5, loss 0.25"


def test_metrics_in_the_header_fit_and_are_ascii():
    metrics = {f"{'ä' * 30}{number}": 0.1 for number in range(64)}
    header = metrics_header(metrics)
    assert header.isascii()
    assert len(header) <= 4096
    assert 10 < len(json.loads(header)) < 64
    assert metrics_header({}) == "{}"


# Worker


async def test_the_worker_returns_results_and_exceptions_in_order():
    worker = Worker()
    assert await asyncio.gather(*(worker.run(lambda number=number: number) for number in range(5))) == [0, 1, 2, 3, 4]

    def fail() -> None:
        raise ValueError("no")

    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(ValueError, match="no"):
        await worker.run(fail)
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        await worker.run(leave)
    assert await worker.run(lambda: "still there") == "still there"


async def test_a_function_whose_caller_left_is_not_called():
    worker, called = Worker(), []
    waiting = asyncio.create_task(worker.run(lambda: called.append("first")))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    left = asyncio.get_running_loop().create_future()
    left.cancel()
    worker._jobs.put((left, lambda: called.append("left")))
    await worker.run(lambda: None)
    assert "left" not in called


# Settings


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"server_url": "http://a"}, "--client-url"),
        ({"client_url": "http://a"}, "--server-url"),
        ({"server_url": "a:9000", "client_url": "http://b"}, "'a:9000' is no URL"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(values, complaint):
    with pytest.raises(SettingsError, match=complaint):
        Settings(**values)


def test_the_job_comes_from_the_environment():
    assert read_config({}) is None
    config = a_config(index=3, group="gpu")
    assert read_config({"FEDJOB_CONFIG": config.model_dump_json(by_alias=True)}) == config
    with pytest.raises(SettingsError, match="FEDJOB_CONFIG: "):
        read_config({"FEDJOB_CONFIG": "{"})
    environment: dict[str, str] = {}
    tell_identity(environment, config)
    assert environment == {
        "FEDJOB_CLIENT_INDEX": "3",
        "FEDJOB_CLIENT_NAME": "clients-0",
        "FEDJOB_CLIENT_GROUP": "gpu",
    }


def test_threads_and_the_kernel_cache_are_set_unless_the_user_did(tmp_path):
    environment = {"HOME": str(tmp_path), "OMP_NUM_THREADS": "4"}
    prepare_environment(environment)
    assert environment["OMP_NUM_THREADS"] == "4"
    assert all(environment[name] == "1" for name in THREAD_VARIABLES if name != "OMP_NUM_THREADS")
    assert environment["NUMBA_CACHE_DIR"] == str(tmp_path / ".cache" / "fedjob" / "numba")
    environment = {"NUMBA_CACHE_DIR": "mine"}
    prepare_environment(environment)
    assert environment["NUMBA_CACHE_DIR"] == "mine"


def test_a_kernel_cache_that_others_can_write_is_not_used(tmp_path):
    folder = tmp_path / ".cache" / "fedjob" / "numba"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    environment = {"HOME": str(tmp_path)}
    prepare_environment(environment)
    assert environment["NUMBA_CACHE_DIR"] != str(folder)
