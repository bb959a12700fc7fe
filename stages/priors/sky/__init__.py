"""Sky, by what is known of gravity, points and colours."""
