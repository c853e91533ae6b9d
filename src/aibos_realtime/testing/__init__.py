"""For users' own tests: a clock that is moved by hand, and a server in memory with clients that speak the protocol by hand."""
