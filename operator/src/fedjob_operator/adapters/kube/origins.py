"""Other jobs of the same namespace, whose checkpoints a job may begin with."""

from collections.abc import Callable
from dataclasses import replace

from fedjob_operator.adapters.kube.api import JOBS, ApiError, ApiRefusedError, KubeApi
from fedjob_operator.adapters.kube.cache import PodCache
from fedjob_operator.adapters.kube.store import parse
from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_operator.core.actions import FindOrigin
from fedjob_operator.core.observed import OriginSeen, PodPhase, PodRole
from fedjob_operator.core.origin import choose_checkpoint
from fedjob_operator.core.pods import leading_index
from fedjob_operator.ports import CallError, UnreadableJobError
from fedjob_protocol.permits import model_permit


class KubeOrigins:
    """`fedjob_operator.ports.Origins` on the API server.

    Only jobs of the job's own namespace are looked at: whoever may create a job there may run pods with any of its
    Secrets. What leaves is a permit for one model, never the other job's token.

    Args:
        api: The API server.
        cache: Knows where the other jobs' aggregators answer.
        namespace: The job's.
        token: Returns the token of a job from its unique id.
    """

    def __init__(self, api: KubeApi, cache: PodCache, *, namespace: str, token: Callable[[str], str]) -> None:
        self._api = api
        self._cache = cache
        self._namespace = namespace
        self._token = token

    async def find(self, action: FindOrigin) -> OriginSeen:
        """Look for the checkpoint, and for where it is served.

        Raises:
            CallError: There was no answer.
        """
        ask, known = action.ask, action.origin
        other = await self._read(ask.name)
        if other is None or (known is not None and other.metadata.uid != known.uid):
            is_final = known is not None
            gone = f"job {ask.name} is not there any more" if is_final else f"there is no job {ask.name}"
            return OriginSeen(attempt=action.attempt, message=gone, is_final=is_final)
        if known is None:
            return choose_checkpoint(ask, other, attempt=action.attempt)
        found = OriginSeen(attempt=action.attempt, origin=known)
        url = self._served_at(other)
        if url is None:
            return replace(found, message=f"the aggregator of job {ask.name} does not serve it now")
        permit = model_permit(self._token(known.uid), known.round)
        return replace(found, url=url, permit=permit)

    async def _read(self, name: str) -> FederatedJob | None:
        try:
            return parse(await self._api.get(JOBS, self._namespace, name))
        except ApiRefusedError as error:
            if error.is_absent:
                return None
            raise CallError(f"job {name} cannot be read: {error}") from error
        except (ApiError, UnreadableJobError) as error:
            raise CallError(f"job {name} cannot be read: {error}") from error

    def _served_at(self, other: FederatedJob) -> str | None:
        place = (PodRole.AGGREGATOR, leading_index(other))
        pods = [pod for pod in self._cache.pods(other.metadata.uid) if (pod.role, pod.index) == place]
        newest = max(pods, key=lambda pod: pod.ordinal, default=None)
        return newest.url if newest and newest.phase is PodPhase.READY else None
