"""The same seed gives the same result: in every process, and on every number of threads as far as rounding goes.

On as many threads, results are equal bit for bit. On more, a sum may be taken in another order, and nothing else
differs: what comes out is a second rounding of the same exact result. Each of the two is as far from it as single
precision takes it, so that they are at most twice as far from each other. How far that is, is measured as the distance
to the same computation in double precision on the same draws, or taken as one unit in the last place where a result
happens to lie nearer.
"""

import os
import subprocess
import sys

import pytest
import same_result
import torch

pytestmark = pytest.mark.xdist_group("same result")


@pytest.fixture(scope="session")
def runs(root, tmp_path_factory):
    """The results of three fresh processes, whose strings hash differently."""
    folder = tmp_path_factory.mktemp("same_result")
    found = {}
    for name, seed, arguments in (("one", "0", ["1"]), ("again", "7", ["1", "exact"]), ("two", "3", ["2"])):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(root), "OMP_WAIT_POLICY": "PASSIVE"}
        command = [sys.executable, root / "tests" / "same_result.py", folder / name, *arguments]
        subprocess.run(command, env=environment, check=True)
        found[name] = torch.load(folder / name)
    return found


@pytest.mark.parametrize("name", same_result.CASES)
def test_another_process_gives_the_same_bits(runs, name):
    assert torch.equal(runs["one"]["results"][name], runs["again"]["results"][name])


@pytest.mark.parametrize("name", same_result.CASES)
def test_another_number_of_threads_gives_the_same_but_for_rounding(runs, name):
    one, two, exact = (
        runs[run][kind][name] for run, kind in (("one", "results"), ("two", "results"), ("again", "exact"))
    )
    if torch.equal(one, two):
        print(f"{name}: the same bits on 1 and 2 threads")
        return
    difference, rounding = (one.double() - two).norm(), (one.double() - exact).norm()
    print(f"{name}: {difference:.2g} apart on 1 and 2 threads, {rounding:.2g} from double precision")
    assert difference <= max(2 * rounding, torch.finfo(one.dtype).eps * exact.norm() / exact.numel() ** 0.5)


def test_no_result_hangs_on_a_global_seed(runs):
    assert all(run["global left alone"] for run in runs.values())
