"""How a system behaves the more it is asked: ``sut sweep``.

``curves.py`` reads what was measured, as pure functions; ``points.py`` says what a point is, ``bench.py`` measures them
with ``sut.studies.driving``, ``grids.py`` knows which, ``study.py`` goes through them, ``report.py`` tells.
"""
