"""The pods of all jobs as last seen: fed by the watch, by our own requests, and put right by lists.

A watch may lose deletions, and its events may be older than the answer to a request. So a pod that was seen to be
gone stays gone, by its unique id; and a list takes away what it lacks, unless that was heard of after it was asked for.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from fedjob_operator.adapters.kube.documents import Document, label, meta, name_of, text, uid_of
from fedjob_operator.adapters.kube.holdups import HeldUp
from fedjob_operator.adapters.kube.view import held_up_since_node, view
from fedjob_operator.build.names import JOB_UID_LABEL
from fedjob_operator.core.observed import PodView, Waiting

MAX_GONE: Final = 4096
"""How many jobs, and pods of one job, are remembered as gone."""


@dataclass(slots=True)
class _Entry:
    uid: str
    name: str
    namespace: str
    seen: PodView
    """What its document says."""
    heard: int
    """When it was heard of last, on the cache's own clock, which ticks with every document."""
    held_up_since: datetime | None
    why: Waiting | None
    """What was found out elsewhere about a pod that is held up."""

    @property
    def view(self) -> PodView:
        """What is known of it."""
        return replace(self.seen, waiting=self.why) if self.why and self.seen.waiting is None else self.seen


@dataclass(slots=True)
class _JobPods:
    entries: dict[str, _Entry] = field(default_factory=dict)
    """By unique id."""
    gone: dict[str, None] = field(default_factory=dict)
    """Unique ids of pods that are no more, oldest first."""
    is_listed: bool = False


class PodCache:
    """The pods of all jobs.

    Args:
        changed: Called with the unique id of a job whenever something about one of its pods is new.
    """

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._jobs: dict[str, _JobPods] = {}
        self._forgotten: dict[str, None] = {}
        self._ticks = 0

    def pods(self, job_uid: str) -> tuple[PodView, ...]:
        """Return the pods of a job."""
        job = self._jobs.get(job_uid)
        return tuple(entry.view for entry in job.entries.values()) if job else ()

    def is_listed(self, job_uid: str) -> bool:
        """Whether the pods of a job have been listed, so that one that is not here is not there."""
        job = self._jobs.get(job_uid)
        return job is not None and job.is_listed

    def all_pods(self) -> tuple[PodView, ...]:
        """Return the pods of all jobs; may be called from another thread."""
        jobs = tuple(self._jobs.values())
        return tuple(entry.view for job in jobs for entry in tuple(job.entries.values()))

    def pod_at(self, url: str) -> tuple[str, str] | None:
        """Return namespace and name of the ready pod that answers at a URL."""
        for job in self._jobs.values():
            for entry in job.entries.values():
                if entry.view.url == url:
                    return entry.namespace, entry.name
        return None

    def held_up(self, job_uid: str) -> list[HeldUp]:
        """Return the pods of a job that have a node and do not begin, and whose status does not say why."""
        job = self._jobs.get(job_uid)
        found = job.entries.values() if job else ()
        return [
            HeldUp(uid=entry.uid, role=entry.seen.role, index=entry.seen.index, since=entry.held_up_since)
            for entry in found
            if entry.held_up_since is not None
        ]

    def explain(self, job_uid: str, pod_uid: str, why: Waiting | None) -> None:
        """Take in why a pod is held up, for as long as it is."""
        job = self._jobs.get(job_uid)
        entry = job.entries.get(pod_uid) if job else None
        if entry is not None and entry.held_up_since is not None and entry.why != why:
            entry.why = why
            self._changed(job_uid)

    def mark(self) -> int:
        """Return the time on the cache's clock; to be taken before a list is asked for."""
        return self._ticks

    def put(self, document: Document) -> None:
        """Take in what the watch told of a pod."""
        job_uid = label(document, JOB_UID_LABEL)
        if not job_uid or job_uid in self._forgotten:
            return
        if self._put(self._jobs.setdefault(job_uid, _JobPods()), document):
            self._changed(job_uid)

    def answered(self, document: Document, *, mark: int) -> None:
        """Take in the answer to a request about a pod, unless the watch was faster: then the answer may be older.

        Args:
            document: The answer.
            mark: The time before the request.
        """
        job = self._jobs.get(label(document, JOB_UID_LABEL))
        if job is None or not self._is_newer(job, uid_of(document), mark):
            self.put(document)

    def remove(self, document: Document) -> None:
        """Take in that a pod is gone."""
        job_uid = label(document, JOB_UID_LABEL)
        job = self._jobs.get(job_uid)
        if job is not None and uid_of(document) not in job.gone:
            self._bury(job, uid_of(document))
            self._changed(job_uid)
            if not job.entries and not job.is_listed:  # of a job that nobody here knows
                del self._jobs[job_uid]

    def absent(self, job_uid: str, pod_uid: str) -> None:
        """Take in that the API server does not know a pod."""
        job = self._jobs.get(job_uid)
        if job is not None and pod_uid in job.entries:
            self._bury(job, pod_uid)
            self._changed(job_uid)

    def replace(self, job_uid: str, documents: Iterable[Document], *, mark: int) -> None:
        """Take in a list of a job's pods.

        Args:
            job_uid: The job.
            documents: All its pods.
            mark: The time before the list was asked for.
        """
        job = self._jobs.setdefault(job_uid, _JobPods())
        is_new, job.is_listed = not job.is_listed, True
        listed = {uid_of(document): document for document in documents}
        lost = [uid for uid, entry in job.entries.items() if uid not in listed and entry.heard <= mark]
        for uid in lost:
            self._bury(job, uid)
        fresh = [self._put(job, document) for uid, document in listed.items() if not self._is_newer(job, uid, mark)]
        if is_new or lost or any(fresh):
            self._changed(job_uid)

    def forget(self, job_uid: str) -> None:
        """Forget a job that is gone; late news of its pods is not listened to."""
        self._jobs.pop(job_uid, None)
        self._forgotten[job_uid] = None
        _trim(self._forgotten)

    def _is_newer(self, job: _JobPods, uid: str, mark: int) -> bool:
        entry = job.entries.get(uid)
        return entry is not None and entry.heard > mark

    def _put(self, job: _JobPods, document: Document) -> bool:
        """Keep what a document says; return whether that is new."""
        self._ticks += 1
        uid, seen = uid_of(document), view(document)
        if seen is None or uid in job.gone:
            return False
        before = job.entries.get(uid)
        namespace = text(meta(document).get("namespace"))
        since = held_up_since_node(document)
        why = before.why if before and since is not None else None
        now = job.entries[uid] = _Entry(uid, name_of(document), namespace, seen, self._ticks, since, why)
        return before is None or before.view != now.view or before.held_up_since != since

    def _bury(self, job: _JobPods, uid: str) -> None:
        self._ticks += 1
        job.entries.pop(uid, None)
        job.gone[uid] = None
        _trim(job.gone)


def _trim(oldest_first: dict[str, None]) -> None:
    while len(oldest_first) > MAX_GONE:
        del oldest_first[next(iter(oldest_first))]
