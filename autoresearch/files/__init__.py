"""What lies on disk, and in which form: program.md, files of inputs, results.json."""
