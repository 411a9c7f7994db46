"""The commands: one file each, with a ``register(app)``."""

COMMANDS = (
    *("run", "doctor", "accuracy", "audit", "boundary", "breakdown", "check-log", "compare", "dataset", "export"),
    *("kernels", "parity", "plan", "report", "serve", "show", "study", "submit", "sweep", "tune", "verify", "whatif"),
)
"""As they are called, in the order of the help: each is a file here, of that name with ``_``."""
