"""Small programs that show what asynctrace sees; each is also a test. `python3 -m demos` runs the shop."""
