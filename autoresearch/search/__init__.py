"""How each prompt stands, which one is asked next, and what holds on fresh samples."""
