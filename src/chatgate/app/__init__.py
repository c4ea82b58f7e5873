"""The composition root: what a configuration makes, and the life of the process that runs it."""

from chatgate.app.assembly import plain_model
from chatgate.app.keeping import DataDirectoryError
from chatgate.app.life import App, serve

__all__ = ["App", "DataDirectoryError", "plain_model", "serve"]
