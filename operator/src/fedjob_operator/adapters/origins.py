"""The programs of a job together with other jobs, whose checkpoints it may begin with."""

from fedjob_operator.core.actions import Action, FindOrigin
from fedjob_operator.observations import Answer
from fedjob_operator.ports import Origins, Programs


class WithOrigins:
    """`fedjob_operator.ports.Programs` that also looks at other jobs.

    Args:
        programs: The job's own.
        origins: The others.
    """

    def __init__(self, programs: Programs, origins: Origins) -> None:
        self._programs = programs
        self._origins = origins

    async def perform(self, action: Action) -> Answer:
        """Make the call of an action.

        Raises:
            CallError: There was no answer, or it was a problem, or it could not be read.
        """
        if isinstance(action, FindOrigin):
            return await self._origins.find(action)
        return await self._programs.perform(action)
