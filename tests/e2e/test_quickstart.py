"""The README's way to a first job on a cluster, as it stands there."""

import re
import subprocess
from pathlib import Path

from tests.e2e.installation import Installation
from tests.support.kubectl import Kubectl, wait_until
from tests.support.repository import ROOT

SECTION = "## On Kubernetes"
SECONDS = 1200


def section() -> str:
    """The part of the README about clusters."""
    text = (ROOT / "README.md").read_text()
    return text.split(SECTION, 1)[1].split("\n## ", 1)[0]


def commands() -> list[str]:
    """Its commands, block by block."""
    return re.findall(r"```sh\n(.*?)```", section(), flags=re.DOTALL)


def run(script: str, folder: Path) -> str:
    """Run a block from the root of the checkout, as a reader does; files that it makes go to the root, too."""
    done = subprocess.run(
        ["sh", "-euxc", script], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    (folder / "output.txt").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_quick_start_works_word_for_word(cluster, installation, tmp_path):
    create, *rest = commands()
    assert create.startswith("kind create cluster")  # the cluster of these tests stands for it
    install, apply, fetch, delete = (block.replace("--name fedjob", f"--name {cluster}") for block in rest)
    installation.uninstall()
    model = ROOT / "model.safetensors"
    try:
        run(install, tmp_path)
        shown = run(apply, tmp_path).splitlines()[-2:]
        expected = re.search(r"```text\n(NAME .*?)```", section(), flags=re.DOTALL)
        assert expected is not None
        # All columns but the age, which is the machine's affair.
        assert [line.split()[:-1] for line in shown] == [line.split()[:-1] for line in expected[1].splitlines()]
        digests = run(fetch, tmp_path)
        assert re.search(r"^([0-9a-f]{64}) .*\nsha256:\1$", digests, flags=re.MULTILINE), digests
        run(delete, tmp_path)
        left = Kubectl("default")
        wait_until(lambda: not left.names("pods", "fedjob.dev/job=digits"), "the end of the job's pods", 60)
    finally:
        model.unlink(missing_ok=True)
        Installation(images=installation.images).install()
