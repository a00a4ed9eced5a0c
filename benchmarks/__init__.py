"""What embedq promises of speed and memory, measured beside its peers: `python -m benchmarks`.

One module is one question; `benchmarks.questions` lists them. `docs/performance.md` says how each is measured.
"""
