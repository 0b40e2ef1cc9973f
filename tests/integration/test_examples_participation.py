"""The examples of clients that register themselves, of a server, and of who takes part, run."""

from pathlib import Path

from tests.integration.test_docs_examples import EXAMPLES, accuracy, run_briefly
from tests.integration.test_serve import serving
from tests.support.outside import hand_started
from tests.support.runs import Folder, live_run
from tests.support.tcp_ports import free_port


def test_the_example_with_clients_of_others_runs(tmp_path: Path):
    server = f"127.0.0.1:{free_port()}"
    file, fewer = EXAMPLES / "30-external.yaml", ("--set", "spec.rounds=2")
    with (
        live_run(_copied(file, tmp_path), tmp_path / "run", "--listen", server, *fewer) as run,
        hand_started(tmp_path, f"http://{server}", 2) as clients,
    ):
        assert run.finish() == 0, run.output
        for client in clients:
            client.says("201: registered")
    assert [len(record.contributors) for record in run.folder.rounds()] == [1, 4, 4]
    assert "external.tokenSecretRef: is ignored on this machine" in run.output


def test_the_example_of_a_server_runs(tmp_path: Path):
    with serving(tmp_path / "served", str(EXAMPLES / "31-serve.yaml")) as server:
        with hand_started(tmp_path, server.url, 2) as clients:
            for client in clients:
                client.says("201: registered")
            assert server.train()[0] == 202
            session = server.wait_for_session(1)
        assert (session["clients"], session["last_round"], session["epochs"]) == (2, 3, 2)
        assert session["after"] > 0.5


def test_the_example_of_who_takes_part_runs(tmp_path: Path):
    smaller = ["spec.clientGroups[0].replicas=4", "spec.roundPolicy.overSelect=1", "spec.roundPolicy.minReports=2"]
    status = run_briefly(EXAMPLES / "32-participation.yaml", tmp_path, *smaller, "spec.minClients=3")
    assert accuracy(status) > 0.3
    rounds = Folder(tmp_path / "run").rounds()
    assert [(len(record.participants), len(record.contributors)) for record in rounds] == [(1, 1), (3, 2), (3, 2)]


def _copied(file: Path, folder: Path) -> Path:
    """A copy, beside which outputs may be written."""
    copy = folder / file.name
    copy.write_bytes(file.read_bytes())
    return copy
