"""The seam to what keeps events: `base` holds the ports, a folder per technology the adapters; the same file name is the same port."""
