"""The doors for other libraries, each used as its library's users would."""
