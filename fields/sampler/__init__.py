"""Where along each ray the field is asked."""
