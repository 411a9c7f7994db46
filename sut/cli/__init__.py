"""What the user calls: options, commands, and what they print."""
