"""The page for people at ``/``: status, rounds and metrics as HTML, and as one line of text. Pure.

Nothing is fetched from elsewhere and nothing runs in the browser; it loads itself again every few seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from types import MappingProxyType
from typing import Final

from fedjob_protocol.messages import AggregatorState, RoundRecord
from fedjob_protocol.replicas import ReplicaRole, ReplicaView
from fedjob_protocol.routes import TRAINING_PATH
from fedjob_protocol.sessions import SessionRecord, SessionState, TrainingRequest

SHOWN_ROUNDS: Final = 50
REFRESH_SECONDS: Final = 5
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
PAGE_HEADERS: Final = MappingProxyType(
    {
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
    }
)

_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
dl { display: grid; grid-template-columns: max-content auto; gap: .25rem 1.5rem; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884; }
code { font-size: .85em; }
form { display: grid; grid-template-columns: max-content 12rem; gap: .5rem 1.5rem; margin: 1rem 0; }
form button { grid-column: 1 / 3; justify-self: start; padding: .3rem 1rem; font: inherit; }
.problem { border-left: .3rem solid #c33; padding-left: .6rem; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """What a server of training sessions shows besides."""

    state: SessionState
    message: str
    history: Sequence[SessionRecord]
    clients: Sequence[Mapping[str, object]]


def sessions_line(state: SessionState) -> str:
    """The state of a server of training sessions in one line."""
    return f"Federated Learning server running. Status: {state}"


def status_line(state: AggregatorState) -> str:
    """The state in one line for terminals."""
    committed = "no round committed" if state.committed is None else f"round {state.committed.round} committed"
    current = ""
    if state.current is not None and state.current.record is None:
        view = state.current
        current = f", round {view.round} {view.state} with {len(view.reported)} reports (attempt {view.attempt})"
    role = "" if state.replica is None else f", {_role(state.replica)}"
    return f"fedjob-aggregator {state.version}: job {state.job_uid or 'none'}, {committed}{current}{role}\n"


def html_page(state: AggregatorState, records: Sequence[RoundRecord], sessions: Sessions | None = None) -> str:
    """The page.

    Args:
        state: Everything about the aggregator.
        records: The last rounds, newest first.
        sessions: Of a server of training sessions.
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
    above = "" if sessions is None else _sessions(sessions)
    body = f"{above}<h2>Model</h2><dl>{listed}</dl>" if sessions else f"<dl>{listed}</dl>"
    body = f'{body}<h2>Rounds</h2>{table}<p><a href="/openapi.json">OpenAPI</a></p>'
    title = "FederatedJob aggregator" if sessions is None else "Federated Learning server"
    return _document(title, body, refresh=True)


def training_page(state: SessionState, *, problem: str | None = None) -> str:
    """The page with the form that starts a session.

    Args:
        state: What the server does now.
        problem: Why the last form was refused.
    """
    fields = "".join(
        f'<label for="{name}">{escape(name.replace("_", " "))}</label>'
        f'<input id="{name}" name="{name}" inputmode="decimal" placeholder="as the server is set" maxlength="20">'
        for name in TrainingRequest.model_fields
    )
    told = "" if problem is None else f'<p class="problem">{escape(problem)}</p>'
    form = f'<form method="post" action="{TRAINING_PATH}">{fields}<button>Start training</button></form>'
    return _document("Training", f'{told}<p>Status: {state}</p>{form}<p><a href="/">Back</a></p>', refresh=False)


def _document(title: str, body: str, *, refresh: bool) -> str:
    again = f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">' if refresh else ""
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{again}<style>{_STYLE}</style></head>'
        f"<body><h1>{title}</h1>{body}</body></html>\n"
    )


def _sessions(sessions: Sessions) -> str:
    button = (
        f'<form method="post" action="{TRAINING_PATH}"><button>Start training</button></form>'
        f'<p><a href="{TRAINING_PATH}">Start with other settings</a></p>'
        if sessions.state is SessionState.IDLE
        else ""
    )
    clients = "".join(
        _cells([client["client_url"], client["client"], client["state"], client["since"]])
        for client in sessions.clients
    )
    history = "".join(_session(record) for record in reversed(sessions.history))
    return (
        f"<p>{escape(sessions_line(sessions.state))}</p><p>{escape(sessions.message)}</p>{button}"
        f"<h2>Clients</h2><table><thead><tr><th>Address</th><th>Index</th><th>State</th><th>Since</th></tr></thead>"
        f"<tbody>{clients}</tbody></table><h2>Sessions</h2><table><thead><tr><th>Session</th><th>State</th>"
        "<th>Clients</th><th>Rounds</th><th>Metric</th><th>Settings</th></tr></thead>"
        f"<tbody>{history}</tbody></table>"
    )


def _session(record: SessionRecord) -> str:
    metric = ""
    if record.metric is not None and record.after is not None:
        before = "" if record.before is None else f"{record.before:.4g} → "
        metric = f"{record.metric} {before}{record.after:.4g}"
    settings = f"learning rate {record.learning_rate:g}, {record.epochs} epochs, batches of {record.batch_size}"
    rounds = f"{record.first_round} to {record.last_round}" if record.last_round >= record.first_round else "none"
    return _cells([record.number, record.state, record.clients, rounds, metric, settings])


def _cells(values: Sequence[object]) -> str:
    return "<tr>" + "".join(f"<td>{'' if value is None else escape(str(value))}</td>" for value in values) + "</tr>"


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
