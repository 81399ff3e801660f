"""What an X-ray measures: one pure function, or a few that belong together, a file."""
