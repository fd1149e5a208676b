"""Compares exported graphs with torch. Only this package, and the exporter `optimum`, need torch and its libraries."""
