"""The revisions, in the order of their names. None is ever changed: another is added."""
