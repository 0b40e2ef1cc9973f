"""What each client of a job has: sizes and labels, without training. ``fedjob partition`` runs it as a program.

``python -m fedjob_client.data.survey`` reads a `SurveyRequest` as JSON from standard input and writes a `Survey` to
standard output. What cannot be read ends it with code 1 and a line on standard error.
"""

import sys

import numpy as np

from fedjob_client.data.dataset import Array
from fedjob_client.data.partition import owners
from fedjob_client.data.registry import load_labels
from fedjob_client.errors import DataError
from fedjob_protocol.process import EXIT_FATAL
from fedjob_protocol.survey import ClientShare, Survey, SurveyedClient, SurveyRequest


def survey(request: SurveyRequest) -> Survey:
    """Count the training examples of every client, and those of each class.

    A data set that is divided is read and divided once, however many clients it is divided among.

    Raises:
        DataError: A client's data cannot be read or divided.
    """
    divided: dict[str, tuple[Array, int | None, Array]] = {}
    """Labels, classes and owners by data set and partition."""
    shares: list[ClientShare] = []
    for client in request.clients:
        data = client.data
        if data.partition is None:
            labels, classes = load_labels(data, seed=request.seed, index=client.index)
        else:
            whole = data.model_copy(update={"partition": data.partition.model_copy(update={"index": 0})})
            key = whole.model_dump_json()
            if key not in divided:
                labels, classes = load_labels(whole, seed=request.seed, index=0)
                divided[key] = labels, classes, owners(labels, data.partition)
            labels, classes, owner = divided[key]
            labels = labels[owner == data.partition.index]
        shares.append(_share(client, labels, classes))
    return Survey(clients=tuple(shares))


def _share(client: SurveyedClient, labels: Array, classes: int | None) -> ClientShare:
    counts = None if classes is None else tuple(int(count) for count in np.bincount(labels, minlength=classes))
    return ClientShare(index=client.index, name=client.name, examples=len(labels), labels=counts)


def main() -> int:
    """The program."""
    request = SurveyRequest.model_validate_json(sys.stdin.buffer.read())
    try:
        found = survey(request)
    except DataError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the program's output
        return EXIT_FATAL
    print(found.model_dump_json(by_alias=True))  # noqa: T201 - the program's output
    return 0


if __name__ == "__main__":
    sys.exit(main())
