"""``sut tune``: which settings are best here, and which Server rate they hold. Its short runs are the product's own.

``space`` says what is tried, ``search`` and ``rate`` decide what to run next (pure functions of what was measured),
``bench`` runs it and keeps it in ``state``, ``tuner`` puts them in order, ``words`` and ``report`` tell what came out.
"""
