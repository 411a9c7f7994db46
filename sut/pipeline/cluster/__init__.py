"""Stages of a pipeline as actors on a Ray cluster: made there, asked, and lost."""
