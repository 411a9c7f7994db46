"""The second of two models: crops of what the first has found, identified in the lane or behind a channel.

``crops.py`` cuts, ``decoder.py`` is what a lane does, ``second.py`` the model; behind a channel ``pool.py`` asks and
``worker.py`` answers, in what ``hands.py`` starts; ``build.py`` puts them together.
"""
