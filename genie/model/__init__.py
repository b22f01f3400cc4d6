"""Loading the user's model and running it eagerly. Runs in child processes only."""
