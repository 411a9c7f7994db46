"""``sut doctor``: what is installed, what really works, and how to get the rest."""
