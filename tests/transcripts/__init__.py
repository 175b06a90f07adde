"""What the core promises, as plays that are read aloud: see player.py for the language."""
