"""A self-hosted ChatGPT API gateway. ARCHITECTURE.md has the map; `pipeline.py` is the first file to read."""

__version__ = "0.1.0"
