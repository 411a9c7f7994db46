"""Where a picture's time goes, by its size, its preprocessor and how much is asked: ``sut breakdown``.

``split.py`` reads the samples of one load, ``overtaking.py`` compares preprocessors over sizes, ``bottleneck.py`` judges
the parts that ``alone.py`` has a process measure by themselves; ``study.py`` makes the runs, ``report.py`` the rows.
"""
