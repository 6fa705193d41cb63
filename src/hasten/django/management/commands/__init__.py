"""The management commands that this Django app adds. Each module is one command."""
