"""Closed lists that are written in two places say the same."""

from fedjob_client.data.registry import LOADERS
from fedjob_client.models.builtin import MODELS
from fedjob_operator.api import enums
from fedjob_protocol.config import PartitionScheme
from fedjob_protocol.errors import KINDS, Word
from fedjob_protocol.layout import BUILT_IN_DATA, BUILT_IN_MODELS, DATA_WITH_PATH, checkpoint_name
from fedjob_protocol.reasons import DESCRIPTIONS, Reason


def test_every_reason_has_a_sentence():
    assert set(DESCRIPTIONS) == set(Reason)
    assert [reason for reason, text in DESCRIPTIONS.items() if not (text[0].isupper() or text[0] == "`")] == []
    assert [reason for reason, text in DESCRIPTIONS.items() if not text.endswith(".")] == []


def test_reasons_are_camel_case_words():
    assert [reason for reason in Reason if not (reason.value.isalpha() and reason.value[0].isupper())] == []


def test_every_word_has_a_status_and_a_retry_rule():
    assert set(KINDS) == set(Word)


def test_built_in_models_are_those_that_clients_have():
    assert frozenset(MODELS) == BUILT_IN_MODELS


def test_built_in_data_are_those_that_clients_have():
    assert frozenset(LOADERS) == BUILT_IN_DATA
    assert DATA_WITH_PATH <= BUILT_IN_DATA


def test_the_resource_and_the_wire_spell_partitions_alike():
    assert enums.PartitionScheme is PartitionScheme


def test_checkpoints_sort_by_their_round():
    names = [checkpoint_name(number) for number in (0, 9, 10, 99_999, 999_999)]
    assert names == sorted(names)
    assert names[0] == "checkpoints/round-000000.safetensors"
