"""Where a picture's time goes, by its size, its preprocessor and how much is asked: ``sut breakdown``.

``split.py`` takes the samples of one load apart, ``overtaking.py`` compares preprocessors over the sizes that
``timed.py`` has them take turns at, ``bottleneck.py`` judges the parts that ``alone.py`` has measured by themselves.
``cells.py`` says what is asked, ``study.py`` asks it, ``report.py`` makes rows of it.
"""
