"""What every process of quoin sets before OpenMP is loaded."""

import subprocess
import sys

SHOW = "import os, sys, quoin.flows.cli.app; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"


def test_threads_do_not_spin_for_long_and_a_user_may_say_otherwise() -> None:
    for environment, value in (({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")):
        told = subprocess.run([sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, check=True)
        assert told.stdout.split() == [value, "False"]
