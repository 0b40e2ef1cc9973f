"""docs/lab.md: the shell blocks run against a real lab and give what the page says."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.markdown import ROOT, blocks, section
from tests.support.runs import DEATH_SECONDS, FEDJOB, environment

PAGE = ROOT / "docs" / "lab.md"
CLIENTS = (8001, 8002, 8003)
AGGREGATOR = 9000


def free_ports() -> list[int]:
    """Three consecutive free ports and a fourth; tests of several clones may run on one machine."""
    for first in range(20_001, 60_000, 97):
        ports = [first, first + 1, first + 2, first + 3]
        try:
            for port in ports:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return ports
    raise AssertionError("no free ports")


@pytest.fixture(scope="module")
def lab() -> Iterator[dict[str, str]]:
    """A running lab: which port of the page is which here."""
    *clients, aggregator = free_ports()
    arguments = ["--client-port", str(clients[0]), "--aggregator-port", str(aggregator)]
    with subprocess.Popen(
        [FEDJOB, "lab", *arguments], env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            if not any(line.startswith("Ctrl-C") for line in process.stdout):
                raise AssertionError(f"the lab ended with exit code {process.wait()}")
            yield dict(zip(map(str, (*CLIENTS, AGGREGATOR)), map(str, (*clients, aggregator)), strict=True))
            process.terminate()
            assert process.wait(DEATH_SECONDS) == 0
        finally:
            process.kill()


def run_as_printed(block: str, lab: dict[str, str]) -> str:
    """Run a block of the page, with the ports of this lab."""
    assert shutil.which("curl"), "this test needs curl"
    script = re.sub(r"\b(8001|8002|8003|9000)\b", lambda match: lab[match[0]], block)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr + block
    return done.stdout


def numbers(name: str, output: str) -> list[float]:
    return [float(value) for value in re.findall(rf'"{name}": ?(-?[0-9.e-]+)', output)]


def by_rounds(output: str) -> list[tuple[float, float]]:
    return [(float(w), float(b)) for w, b in re.findall(r"^round \d: w = (\S+), b = (\S+)$", output, re.MULTILINE)]


def printed(heading: str) -> list:
    """What the page says that is printed; the last digits may differ between types of CPU."""
    return [pytest.approx(pair, rel=1e-4) for pair in by_rounds(section(PAGE, heading))]


def block_of(heading: str, number: int = 0) -> str:
    return re.findall(r"^```bash\n(.*?)^```", section(PAGE, heading), re.MULTILINE | re.DOTALL)[number]


def test_one_round_by_hand(lab):
    health, default, trained, mean = [
        run_as_printed(block_of("One round with curl", number), lab) for number in range(4)
    ]
    assert health.count('"status":"ok"') + health.count('"status": "ok"') == 2
    assert all(abs(w - 3.5) < 0.1 for w in numbers("w", default))
    assert len(numbers("w", default)) == 3
    assert numbers("w", trained)[0] == pytest.approx(3.5, abs=0.1)
    assert numbers("b", trained)[0] == pytest.approx(1.27, abs=0.07)
    assert numbers("global_w", mean) == pytest.approx([3.5])
    assert numbers("global_b", mean) == pytest.approx([1.27])


def test_several_rounds_go_where_the_derivation_says(lab):
    rounds = by_rounds(run_as_printed(block_of("Several rounds"), lab))
    assert len(rounds) == 5
    for number, (w, b) in enumerate(rounds, start=1):
        assert w == pytest.approx(3.5, abs=0.05)
        assert b == pytest.approx(2 * (1 - 0.98 ** (50 * number)), abs=0.06)
    assert rounds == printed("Several rounds")


def test_the_table_of_the_derivation_is_right():
    (row,) = re.findall(r"^\| b \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [float(value) for value in row.split(" | ")] == [
        pytest.approx(2 * (1 - 0.98 ** (50 * number)), abs=5e-4) for number in range(1, 6)
    ]


def test_logistic_regression_finds_the_probability_of_the_labels(lab):
    rounds = by_rounds(run_as_printed(block_of("Logistic regression"), lab))
    assert len(rounds) == 5
    w, b = rounds[-1]
    assert w == pytest.approx(1.5, abs=0.2)
    assert b == pytest.approx(-0.75, abs=0.2)
    assert rounds == printed("Logistic regression")


def test_every_shell_block_of_the_page_was_run():
    run = [block_of("One round with curl", number) for number in range(4)]
    run += [block_of("Several rounds"), block_of("Logistic regression")]
    assert blocks(PAGE, "bash") == run


@pytest.mark.parametrize("option", ["--client-port", "--aggregator-port"])
def test_a_port_in_use_is_named_with_the_option_that_leads_to_another(option):
    *clients, aggregator = free_ports()
    ports = {"--client-port": clients[0], "--aggregator-port": aggregator}
    taken = clients[-1] if option == "--client-port" else aggregator
    with socket.socket() as other:
        other.bind(("127.0.0.1", taken))
        other.listen()
        arguments = [str(word) for pair in ports.items() for word in pair]
        done = subprocess.run(
            [FEDJOB, "lab", *arguments], env=environment(), capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    said = f"fedjob: cannot listen on 127.0.0.1:{taken}: Address already in use; choose other ports with {option}\n"
    assert done.stderr == said
