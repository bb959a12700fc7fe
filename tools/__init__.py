"""What is done with a finished run or beside one: evaluate, export, render, view, and synthetic scenes."""
