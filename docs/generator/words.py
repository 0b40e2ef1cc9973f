"""The closed vocabularies: reasons of a job's status, machine words of error answers."""

from fedjob_protocol.errors import KINDS, PROBLEM_MEDIA_TYPE, Word
from fedjob_protocol.reasons import DESCRIPTIONS, Reason
from generator.markdown import code, page, table


def reasons() -> str:
    """The page of all reasons."""
    rows = [(code(reason), DESCRIPTIONS[reason]) for reason in Reason]
    return page(
        "Reasons",
        "Why a job is in its phase: in `status.reason` and in the reasons of its conditions. Why a participant failed: "
        "in the round log. The list is closed. [Troubleshooting](../troubleshooting.md) says what to do.",
        table(("reason", "meaning"), rows),
    )


def errors() -> str:
    """The page of all machine words."""
    rows = [
        (
            code(word),
            str(KINDS[word].status.value),
            "yes" if KINDS[word].retryable else "no",
        )
        for word in Word
    ]
    return page(
        "Errors",
        f"Every error answer of the aggregator and of a client is `{PROBLEM_MEDIA_TYPE}` with the fields `type`, "
        "`title`, `status`, `detail` and `word`. Programs decide by `word`; people read `detail`. A word never changes "
        "its meaning. *Retry* says whether the same request may succeed when it is sent again and nothing else has "
        "changed.",
        table(("word", "HTTP status", "retry"), rows),
    )
