"""What was asked for, checked once."""
