"""Robust rules against their papers, written down here once more in plain NumPy; their spool and their evidence."""

import asyncio
from contextlib import suppress
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedjob_aggregator.aggregation.robust import Krum, Median, TrimmedMean, krum_scores
from fedjob_aggregator.spool import Spool, SpooledUpdates
from fedjob_aggregator.strategies import Strategies
from fedjob_aggregator.strategy import Finding, MeanStrategy, RobustStrategy, Selection, all_of
from fedjob_protocol.errors import Refusal
from fedjob_protocol.messages import Strategy, Verdict
from fedjob_protocol.weights import decode, encode
from tests.unit.aggregator.harness import running

CLIENTS = 7
FLIPPED = (1, 4)
MODEL = {"a": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), "b": np.array([0.5, -0.25])}
STRATEGIES = {
    "Median": {},
    "TrimmedMean": {"trimFraction": 0.2},
    "Krum": {"byzantine": 2},
    "MultiKrum": {"byzantine": 2},
    "MultiKrum, three": {"byzantine": 2, "select": 3},
}
JUDGED = {"Krum": Verdict.REJECTED, "MultiKrum": Verdict.REJECTED, "Median": Verdict.OUTLIER}


def deltas(round_number=1, *, clients=CLIENTS, flipped=FLIPPED, scale=0.1):
    """Updates that agree but for some noise; those of some clients have the other sign."""
    source = np.random.default_rng(round_number)
    common = {name: source.normal(0.0, 1.0, value.shape) for name, value in MODEL.items()}
    return [
        {
            name: (
                (-1.0 if client in flipped else 1.0) * (common[name] + source.normal(0.0, scale, common[name].shape))
            ).astype(np.float32)
            for name in MODEL
        }
        for client in range(clients)
    ]


def flat(update):
    return np.concatenate([update[name].reshape(-1).astype(np.float64) for name in sorted(update)])


def reference(name, given, updates):
    """What is added to the model: Yin et al. 2018, Definitions 1 and 2; Blanchard et al. 2017."""
    rows = np.array([flat(update) for update in updates])
    n = len(rows)
    if name == "Median":
        ordered = np.sort(rows, axis=0)
        return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2, []
    if name == "TrimmedMean":
        cut = int(np.ceil(given["trimFraction"] * n))
        return np.array([np.mean(sorted(column)[cut : n - cut]) for column in rows.T]), []
    f = given["byzantine"]
    scores = []
    for i in range(n):
        distances = sorted(float(((rows[i] - rows[j]) ** 2).sum()) for j in range(n) if j != i)
        scores.append(sum(distances[: n - f - 2]))
    most = 1 if name == "Krum" else given.get("select", n - f)
    best = sorted(range(n), key=lambda i: (scores[i], i))[:most]
    return rows[best].mean(axis=0), [i for i in range(n) if i not in best]


async def do_round(api, number, strategy, updates, *, order=None, attempt=1):
    changes = {"strategy": strategy, "clients": len(updates), "minReports": len(updates), "attempt": attempt}
    status, answer, _ = await api.open(number, **changes)
    assert status == 200, answer
    for client in order or range(len(updates)):
        status, answer, _ = await api.upload(
            number, client, encode(updates[client]), attempt=attempt, examples=10**client
        )
        assert status == 200, answer
    return await api.wait(number)


def train(folder, strategy, updates, **options):
    """Run one round; return its record and what it changed."""
    settings = options.pop("settings", {})

    async def go():
        async with running(folder, **settings) as api:
            await api.initialise(MODEL)
            record = (await do_round(api, 1, strategy, updates, **options))["record"]
            arrays = decode(await api.get("/v1/models/latest"))[0]
            assert unlinked_files(folder) == []
            return record, flat({name: arrays[name].astype(np.float64) - MODEL[name] for name in MODEL})

    return asyncio.run(go())


def unlinked_files(folder):
    """Files without a name that this process has open in a folder."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor of this listing
            found.append(str(link.readlink()))
    return [target for target in found if target.startswith(str(folder)) and "(deleted)" in target]


def strategy(name):
    return {"name": name.partition(",")[0], "parameters": STRATEGIES[name]}


@pytest.mark.parametrize("clients", [CLIENTS, 8])
@pytest.mark.parametrize("name", STRATEGIES)
def test_the_model_is_that_of_the_paper_and_the_rejected_are_named(name, clients, tmp_path):
    updates = deltas(clients=clients)
    record, change = train(tmp_path, strategy(name), updates)
    expected, rejected = reference(name.partition(",")[0], STRATEGIES[name], updates)
    assert change == pytest.approx(expected, abs=1e-5)
    named = {item["client"]: item for item in record["judgements"] if item["verdict"] == "Rejected"}
    assert sorted(named) == rejected
    for item in named.values():
        assert item["evidence"]["score"] >= item["evidence"]["limit"]
    assert [item["client"] for item in record["contributors"]] == list(range(clients))


@pytest.mark.parametrize("name", STRATEGIES)
def test_flipped_updates_do_not_turn_the_model_round_whatever_they_claim_to_weigh(name, tmp_path):
    """They claim a million times the examples of others."""
    updates = deltas(flipped=(5, 6))
    honest = np.mean([flat(update) for update in updates[:5]], axis=0)
    _, change = train(tmp_path, strategy(name), updates)
    assert np.dot(change, honest) / np.linalg.norm(change) / np.linalg.norm(honest) > 0.95


@pytest.mark.parametrize("name", ["Median", "TrimmedMean"])
def test_a_rule_on_single_elements_names_who_is_far_from_its_result(name, tmp_path):
    record, _ = train(tmp_path, strategy(name), deltas())
    assert [(item["client"], item["verdict"]) for item in record["judgements"]] == [(1, "Outlier"), (4, "Outlier")]
    for item in record["judgements"]:
        assert item["evidence"]["distance"] > item["evidence"]["limit"] > 0


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_order_of_arrival_does_not_matter(name, tmp_path):
    updates = deltas()
    calm, _ = train(tmp_path / "calm", strategy(name), updates)
    again, _ = train(tmp_path / "again", strategy(name), updates, order=(6, 2, 0, 5, 1, 4, 3))
    assert (again["digest"], again["judgements"]) == (calm["digest"], calm["judgements"])


def test_equal_updates_go_by_the_index_of_the_client(tmp_path):
    record, _ = train(tmp_path, strategy("Krum"), [deltas(clients=1, flipped=())[0]] * CLIENTS)
    assert [item["client"] for item in record["judgements"]] == [1, 2, 3, 4, 5, 6]


def test_an_aggregator_that_was_killed_begins_the_round_again_with_the_same_result(tmp_path):
    updates = deltas()
    calm, _ = train(tmp_path / "calm", strategy("MultiKrum"), updates)
    folder = tmp_path / "killed"

    async def first():
        async with running(folder, boot_id="first") as api:
            await api.initialise(MODEL)
            await api.open(1, strategy=strategy("MultiKrum"), clients=CLIENTS, minReports=CLIENTS)
            for client in (6, 0, 3):
                await api.upload(1, client, encode(updates[client]))
            assert unlinked_files(folder)

    async def second():
        async with running(folder, boot_id="second") as api:
            return (await do_round(api, 1, strategy("MultiKrum"), updates, attempt=2))["record"]

    asyncio.run(first())
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["round-000000.safetensors"]
    assert asyncio.run(second())["digest"] == calm["digest"]


@pytest.mark.parametrize("end", ["cancelled", "abandoned"])
def test_an_attempt_that_is_given_up_gives_its_disk_space_back(end, tmp_path):
    async def go():
        async with running(tmp_path) as api:
            await api.initialise(MODEL)
            await api.open(1, strategy=strategy("Median"), clients=2, minReports=2)
            await api.upload(1, 0, encode(deltas()[0]))
            assert len(unlinked_files(tmp_path)) == 1
            if end == "cancelled":
                await api.call("DELETE", "/v1/rounds/1?term=1&attempt=1")
            else:
                report = {"jobUid": "job-uid", "term": 1, "attempt": 1, "bootId": "boot", "message": "gone"}
                await api.call("PUT", "/v1/rounds/1/failures/1", json=report | {"reason": "ClientLost"})
            assert (await api.wait(1))["state"].lower() == end
            assert unlinked_files(tmp_path) == []

    asyncio.run(go())


def test_a_disk_without_room_for_the_spool_ends_the_attempt_and_says_so(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    async def go():
        async with running(tmp_path) as api:
            await api.initialise(MODEL)
            await api.open(1, strategy=strategy("Median"), clients=2)
            with monkeypatch.context() as patched:
                patched.setattr("fedjob_aggregator.spool.write_all", full)
                status, answer, _ = await api.upload(1, 0, encode(deltas()[0]))
            assert (status, answer["word"]) == (503, "unavailable")
            view = await api.wait(1)
            assert view["state"] == "Abandoned"
            assert "No space left" in view["storage"]["message"]
            return (await do_round(api, 1, strategy("Median"), deltas(), attempt=2))["record"]

    assert asyncio.run(go())["attempt"] == 2


@pytest.mark.parametrize("name", STRATEGIES)
def test_little_memory_gives_the_same_model(name, tmp_path, monkeypatch):
    updates = deltas()
    calm, change = train(tmp_path / "calm", strategy(name), updates)
    monkeypatch.setattr("fedjob_aggregator.spool.VALUES_IN_MEMORY", 3 * CLIENTS)
    again, blockwise = train(tmp_path / "again", strategy(name), updates)
    assert blockwise == pytest.approx(change, abs=1e-12)
    assert [item["client"] for item in again["judgements"]] == [item["client"] for item in calm["judgements"]]


def test_the_values_that_are_worked_on_at_a_time_are_bounded_whatever_the_number_of_updates(tmp_path):
    spool = Spool(tmp_path, 1 << 22)
    for clients in (1, 10, 1000, 10_000):
        updates = SpooledUpdates(spool, dict.fromkeys(range(clients), 1), 1 << 22)
        assert 0 < updates.block_elements * clients <= 1 << 21
    spool.close()


def test_distances_and_norms_are_those_of_the_whole_updates(tmp_path, monkeypatch):
    monkeypatch.setattr("fedjob_aggregator.spool.VALUES_IN_MEMORY", 40)
    source = np.random.default_rng(5)
    rows = (1000.0 + source.normal(size=(4, 101))).astype(np.float32)
    spool = Spool(tmp_path, 101)
    for client in (3, 1, 2, 0):
        spool.add(client, [(0, rows[client, :40].copy()), (40, rows[client, 40:].copy())])
    updates = SpooledUpdates(spool, dict.fromkeys(range(4), 1), 101)
    wide = rows.astype(np.float64)
    assert updates.norms == pytest.approx(np.linalg.norm(wide, axis=1), rel=1e-12)
    expected = ((wide[:, None, :] - wide[None, :, :]) ** 2).sum(axis=2)
    assert updates.squared_distances == pytest.approx(expected, rel=1e-9)
    spool.close()


def test_krum_scores_leave_the_farthest_out():
    points = np.array([0.0, 1.0, 2.0, 100.0, 3.0])
    scores = krum_scores((points[:, None] - points[None, :]) ** 2, 1)
    assert scores.tolist() == [1 + 4, 1 + 1, 1 + 1, 97**2 + 98**2, 1 + 4]


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.just(4)), elements=st.floats(-100, 100, width=32)),
    st.sampled_from([Median(), TrimmedMean(trim_fraction=0.0), TrimmedMean(trim_fraction=0.3)]),
    st.randoms(use_true_random=False),
)
def test_rules_on_single_elements_do_not_know_whose_values_they_are(values, rule, random):
    shuffled = values[random.sample(range(len(values)), len(values))]
    combined = rule.combine(values)
    assert rule.combine(shuffled).tobytes() == combined.tobytes()
    assert (values.min(axis=0) <= combined + 1e-9).all()
    assert (combined <= values.max(axis=0) + 1e-9).all()


@given(st.integers(1, 4), st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=4), st.data())
def test_so_few_wrong_values_as_are_trimmed_cannot_move_the_result_out_of_the_right_ones(cut, wrong, data):
    """Yin et al. 2018: each value that is left lies between two right ones."""
    wrong = wrong[:cut]
    count = data.draw(st.integers(2 * cut + 1, 12))
    right = data.draw(st.lists(st.floats(-1, 1, width=32), min_size=count - len(wrong), max_size=count - len(wrong)))
    values = np.array([*right, *wrong], np.float32)[:, None]
    rule = TrimmedMean(trim_fraction=cut / count)
    assert rule.trimmed(count) == cut
    for combined in (rule.combine(values), Median().combine(values)):
        assert min(right) - 1e-9 <= combined[0] <= max(right) + 1e-9


@pytest.mark.parametrize(
    ("fraction", "count", "cut"),
    [(0.0, 5, 0), (0.2, 10, 2), (0.3, 10, 3), (0.2, 7, 2), (0.5, 4, 1), (0.5, 5, 2), (0.4, 1, 0)],
)
def test_how_many_values_are_trimmed(fraction, count, cut):
    assert TrimmedMean(trim_fraction=fraction).trimmed(count) == cut


# Norm clipping


def clipped(folder, limit, updates, **options):
    return train(folder, {"name": "FedAvg", "parameters": {"clipNorm": limit}}, updates, **options)


def test_a_long_update_is_scaled_down_to_the_limit_and_named(tmp_path):
    updates = deltas(clients=3, flipped=())
    updates[1] = {name: 50 * value for name, value in updates[1].items()}
    norms = [np.linalg.norm(flat(update)) for update in updates]
    limit = 1.01 * max(norms[0], norms[2])
    record, change = clipped(tmp_path, limit, updates)
    rows = [flat(update) * min(1.0, limit / norm) for update, norm in zip(updates, norms, strict=True)]
    weights = [1, 10, 100]
    assert change == pytest.approx(np.average(rows, axis=0, weights=weights), abs=1e-5)
    (judgement,) = record["judgements"]
    assert (judgement["client"], judgement["verdict"]) == (1, "Clipped")
    assert judgement["evidence"] == pytest.approx({"norm": norms[1], "limit": limit})


def test_the_norm_has_the_same_bits_in_any_order_of_tensors_and_wherever_it_is_staged(tmp_path, monkeypatch):
    """Else the same updates could give another digest."""
    monkeypatch.setattr("fedjob_aggregator.uploads.SMALL_BODY_BYTES", 0)
    updates = deltas(clients=3, flipped=())
    calm, _ = clipped(tmp_path / "calm", 0.5, updates)
    disk, _ = clipped(tmp_path / "disk", 0.5, updates, settings={"staging_bytes": 0})
    assert disk["digest"] == calm["digest"]
    assert len(calm["judgements"]) == 3


def test_clipping_goes_with_an_optimizer_on_the_aggregator(tmp_path):
    record, _ = train(tmp_path, {"name": "FedAdam", "parameters": {"clipNorm": 0.25}}, deltas(clients=3))
    assert [item["verdict"] for item in record["judgements"]] == ["Clipped"] * 3


# Strategies of a package


class Broken(RobustStrategy):
    """Does something wrong in one of its methods."""

    def __init__(self, parameters):
        self.how = parameters.get("how")
        if self.how == "refuses":
            raise ValueError("how: must not be 'refuses'")
        if self.how == "crashes":
            raise ZeroDivisionError("of its own")

    @property
    def least_updates(self):
        return 1

    def select(self, updates):
        if self.how == "selects nobody":
            return Selection(kept=())
        return all_of(updates)

    def combine(self, values):
        if self.how == "fails":
            raise KeyError("lost")
        if self.how == "has no shape":
            return values.sum()
        return values.mean(axis=0).astype(np.float32 if self.how == "is narrow" else np.float64)


class Nothing:
    """Is no strategy."""

    def __init__(self, parameters):
        pass


class Hoarder(MeanStrategy):
    """Wants to remember too much, or under a name that is none."""

    def __init__(self, parameters):
        self._slots = dict.fromkeys(parameters["slots"], 0.0)

    @property
    def slots(self):
        return self._slots

    @property
    def clip_norm(self):
        return None


OFFERED = [
    EntryPoint(kind.__name__, f"{__name__}:{kind.__name__}", "fedjob.strategies") for kind in (Broken, Nothing, Hoarder)
]


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        ("Broken", {"how": "refuses"}, "strategy Broken: how: must not be 'refuses'"),
        ("Broken", {"how": "crashes"}, "cannot be made: ZeroDivisionError: of its own"),
        ("Nothing", {}, "Nothing is neither a MeanStrategy nor a RobustStrategy"),
        ("Hoarder", {"slots": [f"slot{number}" for number in range(9)]}, "9 slots, at most 8 are kept"),
        ("Hoarder", {"slots": ["../up"]}, "slot '../up' is no name"),
        ("Missing", {}, "strategy 'Missing' is not known here: Broken, FedAdagrad"),
    ],
)
def test_a_strategy_that_cannot_be_made_is_refused_with_its_name(name, parameters, told):
    with pytest.raises(Refusal) as caught:
        Strategies(OFFERED).of(Strategy(name=name, parameters=parameters))
    assert told in caught.value.detail


def test_a_package_cannot_take_the_place_of_a_built_in_strategy():
    imposter = EntryPoint("Krum", f"{__name__}:Broken", "fedjob.strategies")
    assert type(Strategies([imposter]).of(Strategy(name="Krum", parameters={"byzantine": 0}))) is Krum


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("selects nobody", "Broken selected [] of 2 updates"),
        ("has no shape", "Broken gave float32"),
        ("fails", "strategy Broken raised KeyError: 'lost'"),
        ("is narrow", "Broken gave float32 of shape (2,), not 2 float64 values"),
    ],
)
def test_a_strategy_that_breaks_its_contract_harms_no_model_and_is_named(how, told, tmp_path, monkeypatch):
    monkeypatch.setattr("fedjob_aggregator.strategies.entry_points", lambda **_: OFFERED)

    async def go():
        async with running(tmp_path) as api:
            await api.initialise(MODEL)
            await api.open(1, strategy={"name": "Broken", "parameters": {"how": how}}, clients=2, minReports=2)
            for client in range(2):
                await api.upload(1, client, encode(deltas()[client]))
            view = await api.wait(1)
            assert view["state"] == "Abandoned"
            assert [item["reason"] for item in view["failed"]] == ["StrategyFailed"] * 2
            assert told in view["failed"][0]["message"]
            assert unlinked_files(tmp_path) == []
            assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["round-000000.safetensors"]
            return (await api.get("/v1/state"))["committed"]["round"]

    assert asyncio.run(go()) == 0


def test_evidence_that_is_no_finite_number_is_left_out(tmp_path, monkeypatch):
    class Odd(Broken):
        def select(self, updates):
            finding = Finding(verdict=Verdict.REJECTED, evidence={"score": float("nan"), "limit": 1.0})
            return Selection(kept=(0,), findings={1: finding})

    odd = EntryPoint("Odd", f"{__name__}:Broken", "fedjob.strategies")
    monkeypatch.setattr(EntryPoint, "load", lambda _: Odd)
    monkeypatch.setattr("fedjob_aggregator.strategies.entry_points", lambda **_: [odd])
    record, _ = train(tmp_path, {"name": "Odd"}, deltas(clients=2, flipped=()))
    assert record["judgements"] == [{"client": 1, "verdict": "Rejected", "evidence": {"limit": 1.0}}]
