"""The SQL store: SQLite (a file, or memory) and PostgreSQL behind one `Database`. SQLAlchemy is imported when one is opened, not before."""
