"""Wordings of instructions: templates, by topic."""
