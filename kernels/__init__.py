"""CUDA C sources, what compiles and loads them, and what runs them without a GPU."""
