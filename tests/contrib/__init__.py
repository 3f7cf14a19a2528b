"""The adapters for web frameworks, with the real frameworks and a real daemon."""
