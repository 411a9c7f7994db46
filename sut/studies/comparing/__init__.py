"""``sut compare``: which of several ways to run a model is the best here. Its runs are the product's own.

``matrix`` says what is compared, ``automatic`` what there is to compare where nobody names it, ``contest`` which runs
come next and what they mean (pure functions of what was measured), ``bench`` makes them and ``comparison`` puts them in
order, ``report`` tells what came out, ``earlier`` holds it against figures of before.
"""
