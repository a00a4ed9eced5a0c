"""Runs and workers: listed, waited for, cancelled, paused, drained."""
