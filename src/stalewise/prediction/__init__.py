"""Studies answered by mathematics."""
