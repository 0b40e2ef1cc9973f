"""The page for people at ``/``: status, rounds and metrics as HTML, and as one line of text. Pure.

Nothing is fetched from elsewhere and nothing runs in the browser; it loads itself again every few seconds.
"""

from collections.abc import Sequence
from html import escape
from typing import Final

from fedjob_protocol.messages import AggregatorState, RoundRecord
from fedjob_protocol.replicas import ReplicaRole, ReplicaView

SHOWN_ROUNDS: Final = 50
REFRESH_SECONDS: Final = 5
CONTENT_SECURITY_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
dl { display: grid; grid-template-columns: max-content auto; gap: .25rem 1.5rem; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884; }
code { font-size: .85em; }
"""


def status_line(state: AggregatorState) -> str:
    """The state in one line for terminals."""
    committed = "no round committed" if state.committed is None else f"round {state.committed.round} committed"
    current = ""
    if state.current is not None and state.current.record is None:
        view = state.current
        current = f", round {view.round} {view.state} with {len(view.reported)} reports (attempt {view.attempt})"
    role = "" if state.replica is None else f", {_role(state.replica)}"
    return f"fedjob-aggregator {state.version}: job {state.job_uid or 'none'}, {committed}{current}{role}\n"


def html_page(state: AggregatorState, records: Sequence[RoundRecord]) -> str:
    """The page.

    Args:
        state: Everything about the aggregator.
        records: The last rounds, newest first.
    """
    facts = {
        "Job": state.job_uid or "none yet",
        "Committed": "nothing yet" if state.committed is None else f"round {state.committed.round}",
        "Model": "none" if state.committed is None else state.committed.digest,
        "Now": _now(state),
        "Best": "none marked" if state.best is None else f"round {state.best.round}",
        "Version": state.version,
    }
    if state.replica is not None:
        facts["Role"] = _role(state.replica)
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    rows = "".join(_row(record) for record in records[:SHOWN_ROUNDS])
    table = (
        "<table><thead><tr><th>Round</th><th>Clients</th><th>Examples</th><th>Refused</th><th>Seconds</th>"
        f"<th>Metrics</th></tr></thead><tbody>{rows}</tbody></table>"
        if rows
        else "<p>No round is committed yet.</p>"
    )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>FederatedJob aggregator</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}"><style>{_STYLE}</style></head><body>'
        f"<h1>FederatedJob aggregator</h1><dl>{listed}</dl><h2>Rounds</h2>{table}"
        '<p><a href="/openapi.json">OpenAPI</a></p></body></html>\n'
    )


def _role(replica: ReplicaView) -> str:
    if replica.role is ReplicaRole.STANDBY:
        return f"standby of {replica.leader}" if replica.leader else "standby; nobody leads that it knows of"
    held = ", ".join(f"{item.name} at round {item.committed}" for item in replica.standbys)
    return f"leader in term {replica.term}; standbys: {held}"


def _now(state: AggregatorState) -> str:
    view = state.current
    if view is None:
        return "waits for the first round"
    if view.record is not None:
        return f"round {view.round} {view.state}"
    left = "" if view.seconds_left is None else f", {view.seconds_left:.0f} s left"
    storage = "" if view.storage is None else f", storage: {view.storage.message}"
    return f"round {view.round} {view.state}, {len(view.reported)} reports, attempt {view.attempt}{left}{storage}"


def _row(record: RoundRecord) -> str:
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in sorted((record.metrics or {}).items()))
    cells = [
        f"{record.round}{' ★' if record.best else ''}",
        f"{len(record.contributors)}/{len(record.participants)}",
        str(record.examples),
        str(len(record.refused)),
        f"{record.duration_seconds:.2f}",
        metrics or record.evaluation_problem or "",
    ]
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
