"""One call to a server: the exchange, its answer, the models, and who waits how long."""
