"""The command line, one file per command. It uses what every application uses; nothing in the package needs it."""
