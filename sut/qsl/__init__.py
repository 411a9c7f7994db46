"""The query sample library: samples held at the boundary where the clock starts."""
