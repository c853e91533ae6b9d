"""For those who operate a server: what they may ask and do (`operations`), as values (`reports`); over HTTP (`api`), in a browser (`page`)."""
