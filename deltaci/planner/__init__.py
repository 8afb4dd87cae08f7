"""What should run for a change: repository view and difference in, a plan with reasons out."""
