"""The reference of the built-in strategies, from their table in the protocol."""

from typing import Final

from fedjob_protocol.strategies import BUILT_IN_STRATEGIES, ENTRY_POINTS, MOST_COMPARED, PARAMETERS
from generator.markdown import code, page, table

RULES: Final = {
    "FedAvg": "The weighted mean of the updates is added to the model. McMahan et al., AISTATS 2017, Algorithm 1.",
    "FedProx": "The same; clients are held near the model they began with. Li et al., MLSys 2020, Algorithm 2.",
    "FedAvgM": "Momentum on the aggregator. Hsu et al., 2019.",
    "FedAdam": "Adam on the aggregator. Reddi et al., ICLR 2021, Algorithm 2.",
    "FedYogi": "Yogi on the aggregator. Reddi et al., ICLR 2021, Algorithm 2.",
    "FedAdagrad": "Adagrad on the aggregator. Reddi et al., ICLR 2021, Algorithm 2.",
    "Median": "The median of each element. Yin et al., ICML 2018, Definition 1.",
    "TrimmedMean": "The mean of each element without its extreme values. Yin et al., ICML 2018, Definition 2.",
    "Krum": "The one update that is nearest to the others. Blanchard et al., NeurIPS 2017.",
    "MultiKrum": "The mean of the updates that are nearest to the others. Blanchard et al., NeurIPS 2017.",
}
"""By strategy: what it does, and where it is from."""


def strategies() -> str:
    """The page of all strategies."""
    rows = [
        (code(name), RULES[name], ", ".join(_parameter(name, parameter) for parameter in terms.names) or "-")
        for name, terms in BUILT_IN_STRATEGIES.items()
    ]
    ranges = [(code(name), parameter.range, parameter.meaning) for name, parameter in PARAMETERS.items()]
    return page(
        "Strategies",
        "How the updates of a round become the next model: `spec.strategy`, with its parameters in "
        "`spec.strategy.parameters`. A parameter that a strategy does not have is refused by name. What the words "
        "mean, and how to choose: [concepts](../concepts.md#strategies).",
        table(("strategy", "what it does", "parameters and their defaults"), rows),
        f"`select` is all but `byzantine` updates unless it is given. Krum and MultiKrum need 2 * `byzantine` + 3 "
        f"updates in every round, so in `minReports`, and compare at most {MOST_COMPARED:,}.",
        table(("parameter", "must be", "meaning"), ranges),
        f"A package in the aggregator's environment offers others by entry points in the group `{ENTRY_POINTS}`: "
        "[examples/12-own-strategy](../../examples/12-own-strategy/README.md).",
    )


def _parameter(strategy: str, name: str) -> str:
    terms = BUILT_IN_STRATEGIES[strategy]
    if name in terms.required:
        return f"{code(name)} **required**"
    default = terms.defaults[name]
    return f"{code(name)} {'-' if default is None else f'{default:g}'}"
