"""One self-contained page from results: what they say, and how it is drawn."""
