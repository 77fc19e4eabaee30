"""Measurements on a real device: step times, throughput, the table that calibrates a simulator."""
