"""``sut plan``: which lanes, batch, workers and devices hold a rate within a latency, from half a minute of measuring.

``measuring`` times batches and preprocessing in a process of its own, ``model`` says by them what a layout of lanes and
workers comes to (pure functions of what was measured), ``choice`` picks one and says what limits it, ``study`` puts
them in order, ``report`` tells what came out.
"""
