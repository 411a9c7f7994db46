"""The kernels' laboratory: checked against NumPy, explained from counts, timed beside other libraries."""
