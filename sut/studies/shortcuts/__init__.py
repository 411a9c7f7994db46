"""The price list of shortcuts: what each gains in speed and memory, and costs in levels and labels."""
