"""The ids: from where they come, in which order they are walked, each once."""
