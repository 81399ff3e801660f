"""What is measured, and how it is brought into one program."""
