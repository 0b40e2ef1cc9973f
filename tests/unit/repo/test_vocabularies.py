"""Closed lists that are written in two places say the same."""

from fedjob_aggregator.strategies import Strategies
from fedjob_aggregator.strategy import MeanStrategy, RobustStrategy
from fedjob_client.data.registry import LOADERS
from fedjob_client.models.builtin import MODELS
from fedjob_operator.api import enums
from fedjob_protocol.builtin import DATA_PARAMETERS, DATA_WITH_PATH, MODEL_PARAMETERS
from fedjob_protocol.config import PartitionScheme
from fedjob_protocol.errors import KINDS, Word
from fedjob_protocol.layout import checkpoint_name
from fedjob_protocol.messages import Strategy
from fedjob_protocol.reasons import DESCRIPTIONS, Reason
from fedjob_protocol.strategies import BUILT_IN_STRATEGIES, COMPARING, PARAMETERS, least_compared


def test_every_reason_has_a_sentence():
    assert set(DESCRIPTIONS) == set(Reason)
    assert [reason for reason, text in DESCRIPTIONS.items() if not (text[0].isupper() or text[0] == "`")] == []
    assert [reason for reason, text in DESCRIPTIONS.items() if not text.endswith(".")] == []


def test_reasons_are_camel_case_words():
    assert [reason for reason in Reason if not (reason.value.isalpha() and reason.value[0].isupper())] == []


def test_every_word_has_a_status_and_a_retry_rule():
    assert set(KINDS) == set(Word)


def test_built_in_models_are_those_that_clients_have():
    assert MODELS.keys() == MODEL_PARAMETERS.keys()


def test_built_in_data_are_those_that_clients_have():
    assert LOADERS.keys() == DATA_PARAMETERS.keys()
    assert DATA_PARAMETERS.keys() >= DATA_WITH_PATH


def test_built_in_strategies_are_those_that_aggregators_have():
    for name, terms in BUILT_IN_STRATEGIES.items():
        least = {parameter: PARAMETERS[parameter].most / 2 for parameter in terms.required}
        least |= {"byzantine": 1} if "byzantine" in least else {}
        strategy = Strategies([]).of(Strategy(name=name, parameters=least))
        assert isinstance(strategy, MeanStrategy if terms.takes_mean else RobustStrategy)


def test_defaults_of_strategies_are_in_range():
    wrong = [
        (name, parameter)
        for name, terms in BUILT_IN_STRATEGIES.items()
        for parameter, value in terms.defaults.items()
        if value is not None and not PARAMETERS[parameter].accepts(value)
    ]
    assert wrong == []


def test_strategies_that_compare_updates_say_how_many_of_them_may_be_wrong():
    assert all("byzantine" in BUILT_IN_STRATEGIES[name].required for name in COMPARING)
    assert [least_compared({"byzantine": count}) for count in (0, 1, 498)] == [3, 5, 999]


def test_the_resource_and_the_wire_spell_partitions_alike():
    assert enums.PartitionScheme is PartitionScheme


def test_checkpoints_sort_by_their_round():
    names = [checkpoint_name(number) for number in (0, 9, 10, 99_999, 999_999)]
    assert names == sorted(names)
    assert names[0] == "checkpoints/round-000000.safetensors"
