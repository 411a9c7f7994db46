"""A loaded system, asked by us instead of LoadGen: closed loop, open loop, one request at a time.

LoadGen has no closed loop, and needs to know the number of queries before it generates them all; a Server run whose
``issue`` waits for a free place would have to be planned for more queries than are ever answered, each run ends INVALID
by design, and its latencies count from a schedule that means nothing there. So the system is asked by its own two
calls, ``issue`` and ``complete``. That the open loop measures what LoadGen's Server does is held by
``tests/integration/test_driving.py``.
"""
