"""`python -m multiway`, which is also what `torchrun -m multiway` starts."""

from multiway.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
