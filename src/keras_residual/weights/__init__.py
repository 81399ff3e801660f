"""Weights from files, folders and the Hugging Face Hub, and their names in other libraries."""
