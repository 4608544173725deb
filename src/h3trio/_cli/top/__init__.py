"""The command `top`: a hub watched from a terminal."""
