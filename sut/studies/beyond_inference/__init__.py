"""The claims of the paper "Beyond Inference", each with a verdict: ``sut study beyond-inference``.

``paper.py`` says what they claim, ``predicates.py`` when that holds, ``parts.py`` has other studies measure what that
takes, a round at a time; ``study.py`` plans, goes round and keeps them, ``report.py`` tells, ``page.py`` shows.
"""
