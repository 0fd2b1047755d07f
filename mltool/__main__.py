"""`python -m mltool`, the form that `torchrun -m` and `srun python -m` need."""

from mltool.cli import main

if __name__ == "__main__":
    main()
