"""How the tables came to be, step by step: the revisions, and how they are run. Only `migration` uses it."""
