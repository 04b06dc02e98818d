"""What the five files in front stand on; nothing in here knows any of them."""
