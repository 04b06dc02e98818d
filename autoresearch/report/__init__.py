"""What a person reads: the terminal, the page, best-prompt.txt."""
