"""What `torchrun` starts in `test_ranks.py`: the command, on a rank 1 that ends without a word at step 10 of the first attempt."""

import os
import signal
import sys

import torch
from faults import inflicted

from multiway.cli.main import main

torch.set_num_threads(1)
if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":

    def at_ten(report: tuple[str, int]) -> None:
        if report[1] == 10:
            print("dies at step 10", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    inflicted.steps(at_ten)
raise SystemExit(main(sys.argv[1:]))
