"""The commands besides ``sut run``: one file each, with a ``register(app)``."""
