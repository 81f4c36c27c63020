"""`python -m structopt_onnx` is the command line."""

from __future__ import annotations

import sys

from structopt_onnx.cli import main

if __name__ == "__main__":
    sys.exit(main())
