"""Ask a teacher."""
