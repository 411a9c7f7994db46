"""One optimisation after the other, each on top of those before, under one and the same load: ``sut study ladder``.

``rungs.py`` reads the file that says which, ``climb.py`` measures them with ``sut.studies.driving``, ``report.py``
tells what that says, ``page.py`` shows it.
"""
