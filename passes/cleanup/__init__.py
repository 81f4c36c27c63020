"""Clean-up done with the field's libraries."""
