"""Judges a submission's tree, whoever made it. Knows nothing of what packs one here."""
