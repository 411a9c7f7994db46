"""What a picture takes of CPU and GPU, by its size and by where it is preprocessed: ``sut study energy``.

``study.py`` measures its cells with ``sut.studies.driving``, ``report.py`` tells what that says, ``page.py`` shows it.
"""
