"""How instructions are worded: templates, by what they speak of."""
