"""The database worked on: connecting, the embedded servers, the catalog, SQL as data."""
