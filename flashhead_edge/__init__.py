"""A two-stage LM head for small language models, from edge boards to GPU servers."""
