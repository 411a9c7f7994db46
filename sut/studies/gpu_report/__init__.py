"""``sut report gpu``: what a GPU can do as this project sees it, in a quarter of an hour.

``report`` runs the parts, each in a process of its own (``parts``), and writes what they found after every one;
``targets`` says how good that is, ``page`` shows it. What the parts do: ``machine``, ``kernels``, ``rightness``,
``preprocess``, ``served`` and ``ladder``.
"""
