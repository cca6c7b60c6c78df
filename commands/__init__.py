"""The commands of ``gnomon``: one module each, imported only when asked for."""
