"""What makes a backend fast where it is slow by itself; each file names what it works around, and when it can go."""
